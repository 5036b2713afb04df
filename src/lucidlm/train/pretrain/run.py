"""Pretraining: from prepared data to a model directory, by predicting next tokens (causal) or masked ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidlm.checkpoint.save import save_model
from lucidlm.core.config import CONFIG
from lucidlm.core.devices import Compute, choose_compute, describe_machine, to_device
from lucidlm.core.errors import InputError
from lucidlm.core.io import sha256
from lucidlm.core.matmul import fast_matmul
from lucidlm.core.progress import log
from lucidlm.core.seeds import torch_generator
from lucidlm.data.corpus.cards import CARD
from lucidlm.data.corpus.loader import BatchLoader, TokenCorpus
from lucidlm.distributed.failure import explained
from lucidlm.distributed.placing import surely_whole
from lucidlm.distributed.ranks import ALONE, Ranks, join
from lucidlm.inference.held_out import validate
from lucidlm.model.flops import count_parameters, flops_per_token
from lucidlm.model.heads import LanguageModel
from lucidlm.model.loss import IGNORE_INDEX
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.checkpoints import start_in
from lucidlm.train.compilation import compile_blocks
from lucidlm.train.fp8 import take_products_in_fp8
from lucidlm.train.loop import Loop, Outcome, describe_outcome
from lucidlm.train.memory import StepShape, require_memory
from lucidlm.train.pretrain.config import PretrainConfig
from lucidlm.train.pretrain.sizing import choose_depth, model_of_depth
from lucidlm.train.tracking.tracking import Tracking
from lucidlm.train.tracking.webhook import read_webhook


@dataclass
class TokenBatch:
    """A micro-batch, on the device.

    Parameters
    ----------
    tokens, targets: (B, T) int64; a target is `IGNORE_INDEX` where nothing is predicted.
    places: (counted,) int64, which of the B * T positions have a target, if few do; None: all have one.
    counted: how many targets there are.
    bidirectional: whether tokens attend to those after them too.
    """

    tokens: Tensor
    targets: Tensor
    places: Tensor | None
    counted: int
    bidirectional: bool


class TokenObjective:
    """Next or masked tokens of prepared corpora.

    On several ranks each makes the whole batch, masks included, and takes its rows: what is learned in which step does not
    depend on how many there are.
    """

    monitor = "validation_loss"
    higher_is_better = False
    noise = 0.0

    def __init__(
        self,
        config: PretrainConfig,
        corpora: Sequence[tuple[TokenCorpus, float]],
        held_out: Sequence[TokenCorpus],
        tokenizer: Tokenizer,
        compute: Compute,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config, self.tokenizer, self.compute, self.ranks = config, tokenizer, compute, ranks
        self.held_out = held_out
        self.loader = BatchLoader(
            corpora, batch_size=config.batch_size, context=config.context_length, seed=config.loop.seed
        )

    def batches(self, first_step: int) -> Iterator[list[TokenBatch]]:
        for step, windows in enumerate(self.loader.iterate(first_step), first_step):
            size = self.config.micro_batch or self.config.batch_size
            micro_batches = []
            for bidirectional, (tokens, targets) in self._views(windows, step):
                own = slice(*self.ranks.bounds(len(tokens)))
                for part in zip(tokens[own].split(size), targets[own].split(size), strict=True):
                    micro_batches.append(self._to_device(*part, bidirectional))
            yield micro_batches

    def _views(self, windows: Tensor, step: int) -> Iterator[tuple[bool, tuple[Tensor, Tensor]]]:
        """Yield whether attention is bidirectional, and tokens and targets (B, T)."""
        if self.config.objective == "masked":
            yield True, self._masked(windows, step)
            return
        causal = len(windows) if self.config.objective == "causal" else (len(windows) + 1) // 2
        yield False, (windows[:causal, :-1], windows[:causal, 1:])
        if causal < len(windows):
            tokens, hidden = self._masked(windows[causal:], step)
            # A masked token is predicted from the position before it, as a causal model does: one head serves both.
            yield True, (tokens, functional.pad(hidden[:, 1:], (0, 1), value=IGNORE_INDEX))

    def _masked(self, windows: Tensor, step: int | str) -> tuple[Tensor, Tensor]:
        generator = torch_generator(self.config.loop.seed, "mask", step)
        return mask_tokens(windows[:, :-1], self.config.mask_rate, self.tokenizer, generator)

    def _to_device(self, tokens: Tensor, targets: Tensor, bidirectional: bool) -> TokenBatch:
        # Found on the host: on a GPU each of these would wait for all that is queued there.
        places = (targets != IGNORE_INDEX).flatten().nonzero()[:, 0] if bidirectional else None
        counted = targets.numel() if places is None else len(places)
        device = self.compute.device
        return TokenBatch(
            to_device(tokens, device),
            to_device(targets, device),
            None if places is None else to_device(places, device),
            counted,
            bidirectional,
        )

    def counted(self, batch: TokenBatch) -> int:
        return batch.counted

    def tokens(self, batch: TokenBatch) -> int:
        return batch.tokens.numel()

    def loss(self, model: nn.Module, batch: TokenBatch) -> Tensor:
        assert isinstance(model, LanguageModel)
        return model.loss(batch.tokens, batch.targets, bidirectional=batch.bidirectional, places=batch.places)[0]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure the loss on some of the held-out tokens, as fast as training reads them."""
        with torch.autocast(self.compute.device.type, self.compute.dtype, enabled=self.compute.autocasts):
            return self.measure_on(model, self.config.validation_tokens)

    def measure_on(self, model: nn.Module, tokens: int) -> dict[str, float]:
        """Measure the loss on so many held-out tokens."""
        assert isinstance(model, LanguageModel)
        hide = self._masked if self.config.objective == "masked" else None
        return validate(model, self.held_out, self.config.context_length, tokens, self.compute.device, hide, self.ranks)

    def describe(self, step: int) -> str:
        first = step * self.config.batch_size
        return f"{step} (samples {first} to {first + self.config.batch_size - 1} of seed {self.config.loop.seed})"


def mask_tokens(
    tokens: Tensor, share: float, tokenizer: Tokenizer, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mask a `share` of `tokens` (B, T); return the tokens that the model reads and the targets (BERT: Devlin et al. 2019).

    Of these 80 % become the mask token, 10 % a random one, 10 % stay, so that the model cannot know which of the tokens
    it reads are true. At least one position counts.
    """
    chosen = torch.rand(tokens.shape, generator=generator) < share
    if not chosen.any():
        chosen[0, 0] = True
    fate = torch.rand(tokens.shape, generator=generator)
    noise = torch.randint(tokenizer.vocab_size, tokens.shape, generator=generator)
    seen = torch.where(chosen & (fate < 0.8), tokenizer.mask_id, tokens)
    seen = torch.where(chosen & (fate >= 0.9), noise, seen)
    return seen, torch.where(chosen, tokens, IGNORE_INDEX)


def pretrain(config: PretrainConfig, out: str | Path, *, resume: bool = False, webhook: str | None = None) -> Outcome:
    """Pretrain a model on prepared data and leave a model directory in `out`.

    `out` also gets `config.yaml` (the resolved run), `metrics.jsonl` and `checkpoints/`. A run that was stopped, by a
    signal or a crash, goes on with `resume`. Started by torchrun, each process is one rank of the run. `webhook` is an
    address that is told how it ends.

    Raises
    ------
    InputError: the data cannot be read or do not fit together, `out` holds something else, the shape is impossible,
        memory is too short for it, or a tracker is not installed.
    LucidError: the loss is not finite, the disk is full.
    """
    with Tracking(Path(out), config.loop.track, read_webhook(webhook)) as tracking:
        ranks = join(config.device)
        with explained(ranks):
            outcome = _pretrain(config, Path(out), resume, ranks, tracking)
        tracking.finish(outcome.state.step, outcome.evaluation, outcome.stopped_by)
        return outcome


def _pretrain(config: PretrainConfig, out: Path, resume: bool, ranks: Ranks, tracking: Tracking) -> Outcome:
    ranks.require_one_view(resume, out)
    if not resume and ranks.first:
        start_in(out)
    tokenizer = common_tokenizer(list(config.data))
    compute = choose_compute(config.device, config.precision)
    ranks.require_same(compute)
    if not resume:
        # The depth may follow from how fast this machine is.
        config = ranks.agreed(resolve(config, tokenizer, compute) if ranks.first else config)
    assert config.model is not None
    objective = open_objective(config, tokenizer, compute, ranks)
    if not (resume or config.force) and surely_whole(config.loop.parallel, ranks):
        require_memory(config.model, step_shape(config, ranks), config.loop.optimizer, compute)
    log(
        f"{count_parameters(config.model):,} parameters, {flops_per_token(config.model, config.context_length) / 1e6:,.1f} "
        f"MFLOP a token to train; {compute.device.type}, {compute.reason}"
    )
    model = make_model(config, compute)
    loop = Loop(model, objective, config.loop, compute, out, ranks=ranks, tracking=tracking.of(config))
    if not resume and ranks.first:
        config.save(out / CONFIG)
    outcome = loop.run(resume=resume)
    if outcome.stopped_by is None:
        with torch.inference_mode(), fast_matmul(compute.device):
            outcome.evaluation = objective.measure_on(model.eval(), sum(corpus.tokens for corpus in objective.held_out))
        if ranks.first:
            save_model(model, out, tokenizer, provenance=provenance(config, outcome))
    ranks.wait()
    return outcome


def open_objective(
    config: PretrainConfig, tokenizer: Tokenizer, compute: Compute, ranks: Ranks = ALONE
) -> TokenObjective:
    """Return what a resolved run learns from.

    Raises
    ------
    InputError: the data cannot be read, do not fit together, or are too few for the ranks.
    """
    corpora = [(TokenCorpus.open(path, "train"), share) for path, share in config.data.items()]
    held_out = [TokenCorpus.open(path, "validation") for path in config.data]
    objective = TokenObjective(config, corpora, held_out, tokenizer, compute, ranks)
    windows = sum(corpus.tokens // config.context_length for corpus, _ in corpora)
    ranks.require_share(config.batch_size, windows, "samples")
    return objective


def make_model(config: PretrainConfig, compute: Compute) -> LanguageModel:
    """Return the model of a resolved run, with fresh weights.

    Raises
    ------
    InputError: it is to compute in fp8 and cannot, see `take_products_in_fp8`.
    """
    assert config.model is not None
    model = LanguageModel(config.model, seed=config.loop.seed).to(compute.device)
    if config.precision == "fp8":
        take_products_in_fp8(model.model)
    if config.compiled:
        compile_blocks(model.model)
    return model


def step_shape(config: PretrainConfig, ranks: Ranks = ALONE) -> StepShape:
    """Return what a rank reads in a step of a run."""
    hybrid, masked = config.objective == "hybrid", config.objective == "masked"
    share = math.ceil(config.batch_size / ranks.count)
    # A hybrid step reads half of its samples each way, one after the other.
    whole = math.ceil(share / 2) if hybrid else share
    rows = min(config.micro_batch or whole, whole)
    several = hybrid or rows < share
    return StepShape(rows, config.context_length, several, config.mask_rate if masked else 1.0)


def resolve(
    config: PretrainConfig, tokenizer: Tokenizer, compute: Compute, speed: float | None = None
) -> PretrainConfig:
    """Fill in what was left open: the shape of the model, the optimiser and its rates; `speed`: see `choose_depth`.

    Raises
    ------
    InputError: the shape does not fit the tokenizer or the samples.
    """
    masked = config.objective == "masked"
    if config.model is None:
        vocab_size = math.ceil(tokenizer.vocab_size / 64) * 64  # matrix products like round numbers
        shape = config.shape
        depth = config.depth or shape.num_layers or choose_depth(config.loop.minutes, vocab_size, compute, speed)
        model = model_of_depth(depth, vocab_size, config.context_length, width=shape.embedding_dim, masked=masked)
        if config.objective == "hybrid":
            model = model.changed(qk_norm=False)  # causal it is a Llama then, and both ways a EuroBERT
        given = {name: value for name, value in shape if value is not None}
        config = config.changed(depth=depth, model=model.changed(**given))
    config = config.changed(loop=config.loop.changed(optimizer=config.loop.optimizer.completed()))
    assert config.model is not None
    if config.model.vocab_size < tokenizer.vocab_size:
        raise InputError(
            f"the model's vocabulary ({config.model.vocab_size:,}) is smaller than the tokenizer's "
            f"({tokenizer.vocab_size:,})",
            where="model.vocab_size",
            fix="Raise it.",
        )
    if config.model.context_length < config.context_length:
        raise InputError(
            f"samples of {config.context_length:,} tokens are longer than the model's context of "
            f"{config.model.context_length:,}",
            where="context_length",
            fix="Make one fit the other.",
        )
    if config.model.causal == masked:
        raise InputError(f"a {config.objective} objective needs model.causal to be {not masked}", where="objective")
    return config


def common_tokenizer(directories: Sequence[str]) -> Tokenizer:
    """Return the tokenizer that all the prepared `directories` share.

    Raises
    ------
    InputError: there is none, or they were made with several.
    """
    tokenizers = {path: Tokenizer.load(path) for path in directories}
    if len({tokenizer.fingerprint for tokenizer in tokenizers.values()}) > 1:
        raise InputError(
            f"the corpora {', '.join(directories)} were prepared with different tokenizers",
            where="--data",
            fix="Prepare the later ones with --tokenizer-from and the first one's directory.",
        )
    return next(iter(tokenizers.values()))


def provenance(config: PretrainConfig, outcome: Outcome) -> dict[str, Any]:
    """Return the record of how a model came to be."""
    return {
        "task": f"pretraining ({config.objective})",
        "data": {path: sha256(Path(path) / CARD) for path in config.data},
        "seed": config.loop.seed,
        "config": config.model_dump(mode="json"),
        "metrics": describe_outcome(outcome),
        "machine": describe_machine().as_dict(),
    }
