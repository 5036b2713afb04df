"""Our causal models as a backend of lm-evaluation-harness (Gao et al. 2024, doi:10.5281/zenodo.12608602).

Texts are tokenised exactly as by its own backend for transformers, so results are comparable. Importing this module
registers the backend as "lucidlm". It needs lm-eval; `lucidlm.evaluate.harness` checks for it first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from lucidlm.checkpoint.load import load_model
from lucidlm.core.devices import choose_compute
from lucidlm.core.progress import ProgressBar, log
from lucidlm.inference.decode import generate
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.inference.scorer import Scorer
from lucidlm.inference.sequence import Generation

WRITTEN = 256
"""Tokens to generate where a task sets no limit."""

TOKENS_PER_BATCH = 16_384
"""Most tokens of prompts and generated texts in a batch."""

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""Sampling parameters that tasks may set; the harness's names are ours too."""


class HarnessModel(TemplateLM):
    """A model directory that serves the harness's three kinds of request.

    Parameters
    ----------
    pretrained: the model directory.
    device: where to compute; always in fp32, so that results can be compared.
    batch_size, max_batch_size: passed by the harness and unused: batches are made by token count.
    """

    def __init__(
        self,
        pretrained: str | Path,
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        target = choose_compute(device or "auto", "fp32").device
        self.model, self.words = load_model(pretrained, device=target).causal_lm()
        self.scorer, self.name = Scorer(self.model), str(pretrained)
        self._bos = self.words.named("bos_token")

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token."""
        return self.words.eos_id

    @property
    def prefix_token_id(self) -> int:
        """The token before a text: the tokenizer's BOS or, if it has none, its end-of-text token."""
        return self.words.begin_id

    @property
    def tokenizer_name(self) -> str:
        """Identifies the tokenizer in the harness's cache of tokenised requests."""
        return self.words.fingerprint

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Return the ids of `string`, with the tokenizer's special tokens unless `add_special_tokens` is false."""
        return self._encode([string], add_special_tokens)[0]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each request's continuation, and whether greedy decoding would produce it."""
        pairs = _arguments(requests)
        # As in the harness, spaces at the end of the context move to the continuation.
        contexts = [context.rstrip() if context else "" for context, _ in pairs]
        wholes = self._encode([context + continuation for context, continuation in pairs])
        alone = self._encode([continuation for context, continuation in pairs if not context], special=False)
        sizes = {}
        unique = list(dict.fromkeys(context for context in contexts if context))
        for context, ids in zip(unique, self._encode(unique), strict=True):
            sizes[context] = len(ids)
        encoded, without = [], iter(alone)
        for pair, context, whole in zip(pairs, contexts, wholes, strict=True):
            if pair[0]:
                size = sizes.get(context, len(self.tok_encode("")) if not context else 0)
                encoded.append((pair, whole[:size], whole[size:]))
            else:
                ids = next(without)
                begun = ids[:1] == [self.prefix_token_id]
                encoded.append((pair, ids[:1], ids[1:]) if begun else (pair, [self.prefix_token_id], ids))
        return self._loglikelihood_tokens(encoded, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        asked = [(context, continuation) for _, context, continuation in requests]
        found = self.scorer.score(asked, label=None if kwargs.get("disable_tqdm") else "scoring")
        for (pair, _, _), answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", pair, tuple(answer))
        return [(answer.logprob, answer.greedy) for answer in found]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each request's whole text."""
        texts = [text for (text,) in _arguments(requests)]
        label = None if disable_tqdm else "scoring"
        found = self.scorer.score_texts(self._encode(texts), self.prefix_token_id, label)
        for text, answer in zip(texts, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), answer)
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the text generated after each request's context, up to one of its stop strings."""
        asked, written = _arguments(requests), [""] * len(requests)
        kinds: dict[str, list[int]] = {}
        for number, (_, settings) in enumerate(asked):
            kinds.setdefault(json.dumps(settings, sort_keys=True), []).append(number)
        with ProgressBar("writing", len(requests), "texts") as progress:
            for numbers in kinds.values():
                settings = asked[numbers[0]][1]
                stops, config = self._sampling(settings)
                room = self._room(config.length)
                prompts = self._encode([asked[number][0] for number in numbers])
                prompts = [prompt[-room:] or [self.prefix_token_id] for prompt in prompts]
                for rows in _batches(prompts, config.length):
                    found = generate(self.model, self.words, [prompts[row] for row in rows], config)
                    for row, generation in zip(rows, found, strict=True):
                        text = self._text(generation)
                        for stop in stops:
                            text = text.split(stop)[0]
                        written[numbers[row]] = text
                        self.cache_hook.add_partial("generate_until", (asked[numbers[row]][0], settings), text)
                    progress.advance(len(rows))
        return written

    def get_model_info(self) -> dict[str, Any]:
        """Return the facts that the harness records about the model."""
        return {"model_num_parameters": sum(p.numel() for p in self.model.parameters()), "model_dtype": "torch.float32"}

    def _encode(self, texts: Sequence[str], special: bool | None = None) -> list[list[int]]:
        """Return the ids of each text, by default with special tokens unless the text already begins with BOS."""
        begun = [
            special is False or (special is None and bool(self._bos) and text.startswith(self._bos)) for text in texts
        ]
        plain = iter(self.words.encode_batch([text for text, done in zip(texts, begun, strict=True) if done]))
        rest = [text for text, done in zip(texts, begun, strict=True) if not done]
        around = iter(self.words.encodings(rest, whole=True))
        return [next(plain) if done else next(around).ids for done in begun]

    def _sampling(self, settings: dict[str, Any]) -> tuple[list[str], SamplingConfig]:
        """Return the stop strings and the sampling settings of a request."""
        settings = dict(settings)
        until = settings.pop("until", None) or []
        stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
        names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
        lengths = [settings.pop(name) for name in names if name in settings]
        fields = {name: settings.pop(name) for name in SAMPLING if name in settings}
        sampled = settings.pop("do_sample", fields.get("temperature", 0) > 0)
        if settings:
            log(f"Settings of generation that have no effect here: {', '.join(sorted(settings))}.")
        if not sampled:
            fields["temperature"] = 0.0
        base = {"temperature": 1.0, "min_p": 0.0, **fields}
        return stops, SamplingConfig(length=int(next(iter(lengths), WRITTEN)), stop=tuple(stops), **base)

    def _text(self, generation: Generation) -> str:
        """Return the text as the harness's own backends decode it: an incomplete character becomes U+FFFD."""
        if generation.reason == "stop":  # by a control token, perhaps, which decoding would not show
            return generation.text
        return self.words.decode(generation.tokens[: -1 if generation.reason == "eos" else None])

    def _room(self, length: int) -> int:
        """Return how many tokens of a prompt to keep, so that `length` more fit into the context."""
        context = self.model.config.context_length
        if length < context:
            return context - length
        log(
            f"A task asks for texts of {length:,} tokens, and the model's context is {context:,}: "
            f"it reads up to {context // 2:,} tokens of the prompt and writes until the context is full."
        )
        return context // 2


register_model("lucidlm")(HarnessModel)


def _arguments(requests: Sequence[Instance]) -> list[Any]:
    """Return the arguments of each request: (context, continuation), (text,) or (context, generation settings)."""
    return [request.args for request in requests]


def _batches(prompts: Sequence[Sequence[int]], length: int) -> Iterator[list[int]]:
    """Yield batches of prompts of similar length, as indices, each within `TOKENS_PER_BATCH` with its texts."""
    rows: list[int] = []
    for row in sorted(range(len(prompts)), key=lambda row: -len(prompts[row])):
        if rows and (len(rows) + 1) * (len(prompts[rows[0]]) + length) > TOKENS_PER_BATCH:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows
