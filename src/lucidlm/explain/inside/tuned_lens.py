"""The tuned lens (Belrose et al. 2023, arXiv:2303.08112): an affine map for each layer, from its residual stream to what the
last layer's would be.

The maps are trained to give the final distribution (KL divergence), on a text that the user names; the model stays as it
is. They are of one model: another's are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.io import atomic_path
from lucidlm.core.progress import ProgressBar, track
from lucidlm.core.seeds import numpy_generator, torch_generator
from lucidlm.data.sources.read import read_documents
from lucidlm.explain.inside.lens import layer_names
from lucidlm.explain.inside.trace import trace
from lucidlm.explain.inside.view import Grid, View, mean, shown
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

WINDOW = 128
"""Tokens of a window of text; fewer where the model's context is shorter."""
WINDOWS = 512
"""Most windows that are read, the first of the text."""
HELD_OUT = 0.1
"""Share of the windows, the last ones, that the lens is judged on."""
STATES = 256
"""States a layer that a step learns from."""
EVERY = 8
"""Of a held-out window every so many-th state is judged: all logits of all layers are the most of the work."""
LEARNING_RATE = 1e-3
FORMAT = "lucidlm-tuned-lens-1"


class TunedLens(nn.Module):
    """Affine maps, one for the embeddings and for each layer but the last: h + A h + b, which begin as the identity."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layers, width, width))
        self.bias = nn.Parameter(torch.zeros(layers, width))

    def forward(self, stream: Tensor, index: int) -> Tensor:
        """Translate the residual stream (…, D) after `index` layers."""
        return stream + functional.linear(stream, self.weight[index], self.bias[index])

    def save(self, path: str | Path, fingerprint: str) -> None:
        """Write the maps as safetensors, with the fingerprint of the model that they are of."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.named_parameters()}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, {"format": FORMAT, "model": fingerprint})

    @classmethod
    def load(cls, path: str | Path, loaded: LoadedModel) -> TunedLens:
        """Read the maps of a model.

        Raises
        ------
        InputError: there is no such file, it is no lens, or it is another model's.
        """
        if not Path(path).is_file():
            raise InputError("file not found", where=path, fix="Make it: lucidlm inspect train-lens.")
        try:
            with safe_open(str(path), "pt") as file:
                facts = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dictionary)
        except SafetensorError:
            facts, tensors = {}, {}
        if facts.get("format") != FORMAT:
            raise InputError("is no tuned lens", where=path, fix="Make one: lucidlm inspect train-lens.")
        if facts.get("model") != loaded.fingerprint:
            raise InputError(
                "is the lens of another model", where=path, fix="Make one of this model: lucidlm inspect train-lens."
            )
        config = loaded.model.config
        found = cls(config.num_layers, config.embedding_dim)
        found.load_state_dict(tensors)
        return found.to(next(loaded.model.parameters()).device)


def train_lens(
    loaded: LoadedModel,
    data: str,
    *,
    steps: int = 250,
    text_field: str = "text",
    seed: int = 0,
) -> tuple[TunedLens, View]:
    """Train a lens on the text of a source, and judge it and the logit lens on the part that was held out.

    Parameters
    ----------
    steps: Adam's, with a learning rate that falls to 0.

    Raises
    ------
    InputError: the model is no language model, or the source cannot be read or is too short.
    """
    model, tokenizer = loaded.model, loaded.require_tokenizer()
    if not isinstance(model, LanguageModel):
        raise InputError(
            "is not a language model, and has no tokens to look for", where=loaded.source, fix="Pass a language model."
        )
    if steps < 1:
        raise InputError("is less than 1", where="--steps", fix="Pass 250, say.")
    place = model.model.embed_tokens.weight.device
    windows = windows_of(tokenizer, data, text_field, min(WINDOW, model.config.context_length)).to(place)
    cut = max(1, round(HELD_OUT * len(windows)))
    training, held_out = windows[:-cut], windows[-cut:]
    found = TunedLens(model.config.num_layers, model.config.embedding_dim).to(place)
    _train(found, model, training, steps, seed)
    return found, _judged(found, model, held_out, data, len(training) * windows.shape[1])


def windows_of(tokenizer: Tokenizer, data: str, text_field: str, length: int) -> Tensor:
    """Return the first windows of a source's text, (windows, length) int64, each beginning as texts do.

    Raises
    ------
    InputError: the source cannot be read, or has less than ten windows.
    """
    room = length - len(tokenizer.prefix) - len(tokenizer.suffix)
    rows: list[list[int]] = []
    for ids in _stretches(tokenizer, (document.text for document in read_documents(data, text_field=text_field)), room):
        rows.append(tokenizer.whole(ids))
        if len(rows) == WINDOWS:
            break
    if len(rows) < 10:
        raise InputError(f"holds less than {10 * room:,} tokens", where=data, fix="Pass more text.")
    return torch.tensor(rows)


def _stretches(tokenizer: Tokenizer, texts: Iterable[str], room: int) -> Iterator[list[int]]:
    """Yield stretches of `room` tokens of texts one after another, an end of text between."""
    waiting: list[int] = []
    for text in texts:
        waiting += [*tokenizer.encode(text), tokenizer.eos_id]
        while len(waiting) >= room:
            yield waiting[:room]
            waiting = waiting[room:]


def _train(found: TunedLens, model: LanguageModel, windows: Tensor, steps: int, seed: int) -> None:
    learned = list(found.parameters())
    optimizer = torch.optim.Adam(learned, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    order, draw = numpy_generator(seed, "lens windows"), torch_generator(seed, "lens states")
    rows = max(1, STATES // windows.shape[1])
    with ProgressBar("tuning the lens", steps, "steps") as bar:
        for _ in range(steps):
            streams = _streams(model, windows[torch.from_numpy(order.integers(0, len(windows), rows))])
            chosen = torch.randperm(streams.shape[1], generator=draw)[:STATES].to(streams.device)
            streams = streams[:, chosen]
            with torch.no_grad():
                wanted = _logprobs(model, streams[-1])
            total = 0.0
            for index in range(len(streams) - 1):  # one layer's logits in memory at a time
                loss = _divergence(wanted, _logprobs(model, found(streams[index], index))).mean()
                loss.backward(inputs=learned)
                total += loss.item()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            bar.advance(1, note=f"{total / (len(streams) - 1):.3f} nats from the end")


def _streams(model: LanguageModel, tokens: Tensor) -> Tensor:
    """Return the residual streams (layers + 1, B * T, D) of tokens (B, T)."""
    with trace(model, ["input", "residual"]) as found:
        model.model(tokens)
    return torch.stack([found["input", 0], *found.stacked("residual")]).flatten(1, 2)


def _logprobs(model: LanguageModel, states: Tensor) -> Tensor:
    return model.logits(model.model.norm(states)).log_softmax(-1)


def _divergence(wanted: Tensor, given: Tensor) -> Tensor:
    """Return the Kullback–Leibler divergence (…) of distributions (…, V) from those wanted, in nats."""
    return (wanted.exp() * (wanted - given)).sum(-1)


def _judged(found: TunedLens, model: LanguageModel, windows: Tensor, data: str, learned: int) -> View:
    """Compare the lens with the logit lens by their divergence from the final distribution on held-out windows."""
    layers = model.config.num_layers
    lost = np.zeros((2, layers, len(windows)))
    with torch.no_grad():
        for number, window in enumerate(track(windows, "judging the lens", len(windows), "windows")):
            streams = _streams(model, window[None])[:, ::EVERY]
            wanted = _logprobs(model, streams[-1])
            for index in range(layers):
                for kind, states in enumerate((streams[index], found(streams[index], index))):
                    lost[kind, index, number] = _divergence(wanted, _logprobs(model, states)).mean().item()
    plain, tuned = (mean(rows.mean(0)) for rows in lost)
    better = mean((lost[0] - lost[1]).mean(0))
    grid = Grid(
        "divergence from the final distribution on held-out text (nats)",
        layer_names(layers - 1),
        ("logit lens", "tuned lens"),
        lost.mean(-1).T,
    )
    words = "translates better than" if better.low > 0 else "is NOT SHOWN to translate better than"
    verdict = (
        f"Tuned on {learned:,} tokens, the lens {words} the logit lens: on {len(windows)} held-out windows it is "
        f"{shown(tuned)} nats a token from the final distribution, the logit lens "
        f"{shown(plain)} (means of all layers; 95 % intervals over windows).",
    )
    figures = {"tuned": tuned.model_dump(), "logit": plain.model_dump(), "gain": better.model_dump(), "tokens": learned}
    return View("train-lens", f"Tuned lens of {data}", (grid,), verdict, figures)
