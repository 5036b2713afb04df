"""The Transformer with a head: language model, sequence classifier, token classifier, span extractor."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidlm.core.errors import InputError
from lucidlm.core.seeds import torch_generator
from lucidlm.model.attention import LayerCache
from lucidlm.model.config import ModelConfig, Pooling, ProblemType
from lucidlm.model.dropout import Dropout
from lucidlm.model.generation import GenerationDefaults
from lucidlm.model.loss import chunk_rows, token_losses
from lucidlm.model.ngrams import WideBranch
from lucidlm.model.norm import make_norm
from lucidlm.model.pooling import SentenceSettings
from lucidlm.model.transformer import Transformer, initialise


class HeadTransform(nn.Module):
    """What BERT's states pass before the output embedding: a dense layer, GELU and a norm; and the output's bias.

    GELU is in the MLPs' form: by tanh if theirs is, else exact.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.approximate = "tanh" if config.activation == "gelu_tanh" else "none"
        self.dense = nn.Linear(config.embedding_dim, config.embedding_dim)
        self.norm = make_norm(config)
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map states (..., D) to (..., D)."""
        return self.norm(functional.gelu(self.dense(hidden), approximate=self.approximate))


class LanguageModel(nn.Module):
    """A distribution over the vocabulary at every position: the next token (causal) or the masked one (bidirectional).

    `generation` is how it writes unless it is told otherwise: what its generation_config.json says. `sentence` is how its
    states become vectors of texts, if sentence-transformers' files say that.
    """

    def __init__(self, config: ModelConfig, seed: int | None = 0) -> None:
        """Build with fresh weights drawn from `seed`; None leaves them as they come, to be loaded."""
        super().__init__()
        self.config = config
        self.generation = GenerationDefaults()
        self.sentence: SentenceSettings | None = None
        self.model = Transformer(config)
        self.transform = HeadTransform(config) if config.head_transform else None
        tied = config.tied_embeddings
        self.lm_head = None if tied else nn.Linear(config.embedding_dim, config.vocab_size, bias=False)
        if seed is not None:
            initialise(self, config, torch_generator(seed, "weights"))

    @property
    def head(self) -> Tensor:
        """The output embedding (V, D)."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden states (..., D), in the dtype that `hidden` is multiplied in."""
        states, table = self._factors(hidden)
        # A slice would be multiplied row by row, each reading the whole table, where weights take no gradients.
        return functional.linear(states.contiguous(), table.to(states.dtype))

    def _factors(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return states (..., C) and a table (V, C) whose product is the logits of `hidden` (..., D)."""
        if self.transform is None:
            return hidden, self.head
        # A bias is one more column of the table, for a state that is always 1.
        states = functional.pad(self.transform(hidden), (0, 1), value=1.0)
        return states, torch.cat((self.head, self.transform.output_bias[:, None]), dim=1)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        mask: Tensor | None = None,
        caches: Sequence[LayerCache] | None = None,
    ) -> Tensor:
        """Return logits (B, T, V) for `tokens` (B, T) int64; see `Transformer.forward` for the rest."""
        return self.logits(
            self.model(tokens, positions=positions, token_type_ids=token_type_ids, mask=mask, caches=caches)
        )

    def loss(
        self, tokens: Tensor, targets: Tensor, *, bidirectional: bool = False, places: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return summed cross-entropy in nats and counted positions, for `tokens` and `targets` (B, T) int64.

        Parameters
        ----------
        bidirectional: tokens of a causal model attend to those after them too.
        places: (N,) int64, which of the B * T positions count, if few do: only their states go through the head, the
            widest product of all. None: all states do.
        """
        switched = bidirectional and self.config.causal
        everything = tokens.new_ones(1, 1, tokens.shape[1], dtype=torch.bool) if switched else None
        hidden = self.model(tokens, mask=everything)
        if places is not None:
            hidden, targets = (x.flatten(0, 1).index_select(0, places)[None] for x in (hidden, targets))
        return self.cross_entropy(hidden, targets)

    def cross_entropy(self, hidden: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return summed cross-entropy in nats and counted positions, from hidden states (B, T, D); see `token_losses`."""
        return token_losses(*self._factors(hidden), targets, smoothing)

    def token_nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy in nats of each of `targets` (N,) int64, fp32 (N,), from hidden states (N, D)."""
        rows = chunk_rows(self.config.vocab_size, hidden.device)
        parts = [
            functional.cross_entropy(self.logits(states).float(), target, reduction="none")
            for states, target in zip(hidden.split(rows), targets.split(rows), strict=True)
        ]
        return torch.cat(parts)


def blank_head(config: ModelConfig, device: torch.device) -> dict[str, Tensor]:
    """Return weights for the head of a `LanguageModel` that give every token the same chance, until they are trained."""
    width, tied = config.embedding_dim, config.tied_embeddings
    blank = {} if tied else {"lm_head.weight": torch.zeros(config.vocab_size, width, device=device)}
    if config.head_transform:
        # With an output embedding that is the input's, it is the states that have to be zero.
        blank |= {
            "transform.dense.weight": torch.eye(width, device=device),
            "transform.dense.bias": torch.zeros(width, device=device),
            "transform.norm.weight": torch.full((width,), 0.0 if tied else 1.0, device=device),
            "transform.norm.bias": torch.zeros(width, device=device),
            "transform.output_bias": torch.zeros(config.vocab_size, device=device),
        }
    return blank


def text_states(
    backbone: Transformer,
    tokens: Tensor,
    lengths: Tensor,
    pooling: Pooling,
    token_type_ids: Tensor | None = None,
    pad_id: int | None = None,
) -> Tensor:
    """Return one state (B, D) a text: the "last" token's, the "first" one's, or the "mean" of all.

    `tokens` (B, T) int64, and their segments `token_type_ids`, are padded on the right to T from `lengths` (B,) int64. Where
    `pad_id` is given, the last token is the last one that is another.
    """
    within = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # (B, T)
    # What pads the right is invisible to causal attention anyway, and to any where nothing is padded.
    hidden = backbone(
        tokens, token_type_ids=token_type_ids, mask=None if backbone.config.causal else within[:, None]
    )  # (B, T, D)
    if pooling == "first":
        return hidden[:, 0]
    if pooling == "last":
        last = lengths - 1
        if pad_id is not None:
            last = (torch.arange(tokens.shape[1], device=tokens.device) * (within & (tokens != pad_id))).amax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    return (hidden * within[..., None]).sum(1) / lengths[:, None]


class SequenceClassifier(nn.Module):
    """Logits of the labels of a whole text.

    Causal backbones have a linear `score`, as transformers' Qwen3ForSequenceClassification; bidirectional ones a dense
    layer and `classifier`: with GELU between as EuroBertForSequenceClassification, or, if a text is read from its first
    token, with tanh as BertForSequenceClassification.

    `wide` is the counted n-grams beside the Transformer, if there are any. They are of texts, so what has the texts adds
    them (see `lucidlm.predict.classifier`); `forward` is the Transformer alone.

    Parameters
    ----------
    pooling: read the class from the "last" token's state (transformers' way for causal models), from the "mean", or from
        the "first" token's (BERT's way; a causal model's first token has seen nothing else).
    pad_id: the token that texts are padded with. Where a text itself ends with it, the last token is the one before,
        since that is what transformers reads: its classifiers know padding by this token, and by nothing else.
    problem_type: what the logits mean.

    Raises
    ------
    InputError: a causal model is to be read from its first token.
    """

    def __init__(
        self,
        config: ModelConfig,
        labels: Sequence[str],
        pooling: Pooling,
        seed: int | None = 0,
        pad_id: int | None = None,
        problem_type: ProblemType = "single_label_classification",
    ) -> None:
        super().__init__()
        if config.causal and pooling == "first":
            raise InputError(
                "the first token of a causal model has seen none of the others",
                where="pooling",
                fix="Choose mean or last.",
            )
        self.config, self.labels = config, list(labels)
        self.pooling: Pooling = pooling
        self.pad_id = pad_id
        self.wide: WideBranch | None = None
        self.problem_type: ProblemType = problem_type
        self.model = Transformer(config)
        self.dropout = Dropout(config.dropout)
        width = config.embedding_dim
        if config.causal:
            self.score = nn.Linear(width, len(self.labels), bias=False)
        else:
            self.dense = nn.Linear(width, width)
            self.classifier = nn.Linear(width, len(self.labels))
        if seed is not None:
            initialise(self, config, torch_generator(seed, "weights"))

    def forward(self, tokens: Tensor, lengths: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return logits (B, labels) for `tokens` (B, T) int64, padded on the right to T from `lengths` (B,) int64.

        `token_type_ids` (B, T) int64 are the tokens' segments; None: all 0.
        """
        pooled = text_states(self.model, tokens, lengths, self.pooling, token_type_ids, self.pad_id)
        if self.config.causal:
            return self.score(self.dropout(pooled))
        if self.pooling == "first":
            return self.classifier(self.dropout(self.dense(pooled).tanh()))
        return self.classifier(functional.gelu(self.dense(self.dropout(pooled))))


class TokenClassifier(nn.Module):
    """A class for every token: a linear layer, `score` on causal backbones as transformers' Qwen3ForTokenClassification
    has it, `classifier` on bidirectional ones as BertForTokenClassification."""

    def __init__(self, config: ModelConfig, labels: Sequence[str], seed: int | None = 0) -> None:
        super().__init__()
        self.config, self.labels = config, list(labels)
        self.model = Transformer(config)
        self.dropout = Dropout(config.dropout)
        head = nn.Linear(config.embedding_dim, len(self.labels))
        if config.causal:
            self.score = head
        else:
            self.classifier = head
        if seed is not None:
            initialise(self, config, torch_generator(seed, "weights"))

    def forward(self, tokens: Tensor, lengths: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return logits (B, T, labels), without meaning past `lengths` (B,); `tokens` and `token_type_ids` (B, T) int64."""
        within = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # (B, T)
        hidden = self.model(
            tokens, token_type_ids=token_type_ids, mask=None if self.config.causal else within[:, None]
        )  # (B, T, D)
        head = self.score if self.config.causal else self.classifier
        return head(self.dropout(hidden))


class SpanExtractor(nn.Module):
    """Where in the text an answer starts and where it ends; named as transformers' Qwen3ForQuestionAnswering."""

    def __init__(self, config: ModelConfig, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.qa_outputs = nn.Linear(config.embedding_dim, 2)
        if seed is not None:
            initialise(self, config, torch_generator(seed, "weights"))

    def forward(self, tokens: Tensor, lengths: Tensor, token_type_ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return start and end logits, each (B, T), minus infinity past `lengths` (B,); `tokens` and
        `token_type_ids` (B, T) int64."""
        within = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # (B, T)
        hidden = self.transformer(
            tokens, token_type_ids=token_type_ids, mask=None if self.config.causal else within[:, None]
        )
        start, end = self.qa_outputs(hidden).masked_fill(~within[..., None], float("-inf")).unbind(-1)
        return start, end


Model = LanguageModel | SequenceClassifier | TokenClassifier | SpanExtractor

M = TypeVar("M", bound=nn.Module)


def twin(model: M) -> M:
    """Return a model of its own with the same weights: hooks on one are not met by what the other reads."""
    shared: list[object] = [*model.parameters(), *model.buffers()]
    if isinstance(model, SequenceClassifier):
        shared.append(model.wide)
    return deepcopy(model, {id(part): part for part in shared})
