"""Token tagging: a BIO tag for each word of a sentence, or the entities of a text.

The first token of each word carries its tag, the others are not counted (Devlin et al. 2019, arXiv:1810.04805). Of all
sequences of tags that are sound BIO the most probable one is taken, tokens being independent given the text (Viterbi 1967).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self, overload

import numpy as np
import torch

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.arguments import require_texts, wrong_type
from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.progress import track
from lucidlm.data.examples.bio import OUTSIDE, entities, may_follow, split_tag, tag_names
from lucidlm.data.examples.records import Entity, TaggedSentence, Tags
from lucidlm.data.scripts import separates_no_words, token_spans
from lucidlm.model.heads import TokenClassifier
from lucidlm.predict.batching import bucket_by_length, pad, tokens_per_batch
from lucidlm.predict.text_model import TextModel
from lucidlm.tokenize.embedding_rows import padding, refuse_beyond
from lucidlm.tokenize.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class EncodedWords:
    """The words of a sentence as tokens.

    Parameters
    ----------
    ids: token ids, int32.
    firsts: the first token of each word, int64; -1 for a word of characters that the tokenizer drops.
    """

    ids: np.ndarray
    firsts: np.ndarray


class TokenTagger(TextModel[TokenClassifier]):
    """A model that marks entities.

    >>> tagger = TokenTagger("tagger")
    >>> tagger("Ada lives in London.")
    [Entity(type='PER', text='Ada', start=0, end=3), Entity(type='LOC', text='London', start=13, end=19)]
    >>> tagger.tags([["Ada", "lives", "in", "London", "."]])
    [('B-PER', 'O', 'O', 'B-LOC', 'O')]

    A sentence that is longer than `max_length` tokens is read in windows, each overlapping the next by half; a word is read
    in the window in which it stands farthest from an edge.

    Parameters
    ----------
    source: a model that was fine-tuned for token tagging, or another source of one.
    device: auto, cpu, cuda, cuda:1, mps.

    Raises
    ------
    InputError: there is no such model, or it does not tag tokens by BIO.
    """

    @classmethod
    def from_model(cls, model: TokenClassifier, tokenizer: Tokenizer, max_length: int) -> Self:
        """Use a model in memory, such as one that is being trained: the current weights answer.

        Raises
        ------
        InputError: `max_length` is more than the model's context, or leaves no room; the labels are not BIO tags.
        """
        made = cls.__new__(cls)
        made._set(model, tokenizer, max_length)
        return made

    def _open(self, loaded: LoadedModel) -> None:
        if not isinstance(loaded.model, TokenClassifier):
            raise InputError(
                f"holds a {loaded.record['kind']} model, not one that tags tokens",
                where=loaded.source,
                fix="Fine-tune it first: lucidlm finetune token-tagging --model … --data … --out ….",
            )
        length = loaded.record["provenance"].get("config", {}).get("max_length") or loaded.model.config.context_length
        self._set(loaded.model, loaded.require_tokenizer(), length)

    def _set(self, model: TokenClassifier, tokenizer: Tokenizer, max_length: int) -> None:
        around = len(tokenizer.prefix) + len(tokenizer.suffix)
        if not around < max_length <= model.config.context_length:
            raise InputError(
                f"{max_length:,} tokens at once are not what this model can read sentences with",
                where="max_length",
                fix=f"Pass {around + 1} to {model.config.context_length}, the model's context.",
            )
        types = {split_tag(label)[1] for label in model.labels} - {""}
        if OUTSIDE not in model.labels or not set(model.labels) <= set(tag_names(types)):
            raise InputError(
                f"its labels are no BIO tags ({', '.join(model.labels[:10])})",
                where=self.source or "labels",
                fix="Known are O, and B- and I- before a type: choose another model.",
            )
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length
        self.max_tokens = max_length - around
        allowed = [[may_follow(tag, previous) for tag in model.labels] for previous in [*model.labels, OUTSIDE]]
        self._penalties = np.where(np.array(allowed), 0.0, -np.inf)  # (labels + 1, labels); the last row: first words

    @overload
    def __call__(self, texts: str) -> list[Entity]: ...

    @overload
    def __call__(self, texts: Sequence[str]) -> list[list[Entity]]: ...

    def __call__(self, texts: str | Sequence[str]) -> list[Entity] | list[list[Entity]]:
        """Return the entities of a text, or of each of several, in order.

        Texts are cut into words and punctuation marks, and in scripts without spaces into characters; `tags` takes words
        that were cut otherwise.

        Raises
        ------
        InputError: what is passed is no text and no list of them, or holds a token that the model has no row for.
        """
        if isinstance(texts, str):
            return self([texts])[0]
        asked = require_texts(texts, "texts")
        spans = [token_spans(text) for text in asked]
        words = [[text[start:end] for start, end in found] for text, found in zip(asked, spans, strict=True)]
        answers = []
        for text, found, tags in zip(asked, spans, self.tags(words), strict=True):
            places = [(kind, found[first][0], found[end - 1][1]) for kind, first, end in entities(tags)]
            answers.append([Entity(kind, text[start:end], start, end) for kind, start, end in places])
        return answers

    def tags(self, sentences: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
        """Return a tag for each word of each sentence.

        Raises
        ------
        InputError: what is passed are no lists of words, or one holds a token that the model has no row for.
        """
        if isinstance(sentences, str) or not isinstance(sentences, Sequence):
            raise wrong_type(sentences, "sentences", "Pass a list of sentences, each a list of words.")
        return self._tags([require_texts(words, f"sentences[{row}]") for row, words in enumerate(sentences)])

    def __repr__(self) -> str:
        return self._shown(f"types: {', '.join(self.types)}")

    @property
    def types(self) -> list[str]:
        """The types of entities that it knows, sorted."""
        return sorted({split_tag(label)[1] for label in self.model.labels} - {""})

    def encode(self, sentences: Sequence[Sequence[str]]) -> list[EncodedWords]:
        """Return each sentence's words as tokens.

        Raises
        ------
        InputError: one holds a token that the model has no row for.
        """
        encoded = []
        spaced = [self._spaced(words) for words in sentences]
        encodings = self.tokenizer.encodings_of_words(spaced)
        for number, (words, given, found) in enumerate(zip(sentences, spaced, encodings, strict=True), 1):
            where = f"sentence {number:,} of {len(sentences):,}"
            refuse_beyond(self.tokenizer.whole(found.ids), self.model.config.vocab_size, self.tokenizer, where)
            firsts = np.full(len(words), -1)
            pairs = zip(found.word_ids, found.offsets, strict=True)
            for place, (word, (_, end)) in enumerate(pairs):
                # A token of the space alone is not the word's first.
                if word is not None and firsts[word] < 0 and end > len(given[word]) - len(words[word]):
                    firsts[word] = place
            encoded.append(EncodedWords(np.array(found.ids, dtype=np.int32), firsts))
        return encoded

    def _spaced(self, words: Sequence[str]) -> list[str]:
        """Return words as they stand in a text: tokens of bytes have the space before a word in them."""
        if not self.tokenizer.byte_level or separates_no_words(words):
            return list(words)
        return [word if place == 0 else f" {word}" for place, word in enumerate(words)]

    def predict(self, examples: Sequence[TaggedSentence], label: str | None = None) -> list[Tags]:
        """Tag the words of each example; shows progress if given a `label` for it."""
        return [Tags(tags) for tags in self._tags([example.tokens for example in examples], label)]

    def _tags(self, sentences: Sequence[Sequence[str]], label: str | None = None) -> list[tuple[str, ...]]:
        labels = self.model.labels
        found = self._scores(self.encode(sentences), label)
        return [tuple(labels[place] for place in self._best_path(scores)) for scores in found]

    def long_inputs(self, examples: Sequence[TaggedSentence]) -> dict[str, int]:
        """Return how many sentences are read in windows, and how many entities are of types that the model lacks."""
        encoded = self.encode([example.tokens for example in examples])
        known = set(self.types)
        return {
            "inputs read in windows": sum(len(found.ids) > self.max_tokens for found in encoded),
            "entities of types that the model does not know": sum(
                kind not in known for example in examples for kind, _, _ in entities(example.tags)
            ),
        }

    def _scores(self, encoded: Sequence[EncodedWords], label: str | None) -> list[np.ndarray]:
        """Return the log-probability (words, labels), float64, of each tag for each word of each sentence."""
        windows, places = [], []
        stride = max(1, self.max_tokens // 2)
        for owner, found in enumerate(encoded):
            beyond = max(0, len(found.ids) - self.max_tokens)
            for start in [*range(0, beyond, stride), beyond]:
                windows.append(np.array(self.tokenizer.whole(found.ids[start : start + self.max_tokens]), np.int32))
                places.append((owner, start))
        scores = [np.zeros((len(found.firsts), len(self.model.labels))) for found in encoded]
        farthest = [np.full(len(found.firsts), -1) for found in encoded]
        before = len(self.tokenizer.prefix)
        batches: Iterable[np.ndarray] = bucket_by_length(windows, tokens_per_batch(self.model, self.max_length))
        if label is not None:
            batches = track(batches, label, unit="batches")
        was_training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            for rows in batches:
                for row, found in zip(rows, self._log_probabilities([windows[row] for row in rows]), strict=True):
                    owner, start = places[row]
                    within = encoded[owner].firsts - start
                    # How far each word is from the window's nearer edge; below 0 outside of it.
                    margin = np.minimum(within, min(self.max_tokens, len(encoded[owner].ids) - start) - 1 - within)
                    better = (margin > farthest[owner]) & (encoded[owner].firsts >= 0)
                    scores[owner][better] = found[before + within[better]]
                    farthest[owner][better] = margin[better]
        self.model.train(was_training)
        return scores

    def _log_probabilities(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        tokens, lengths = pad(windows, padding(self.tokenizer, self.model.config.vocab_size))
        device = self.model.model.embed_tokens.weight.device
        found = self.model(tokens.to(device), lengths.to(device)).float().cpu().double().log_softmax(-1).numpy()
        if not all(np.isfinite(row[:size]).all() for row, size in zip(found, lengths.tolist(), strict=True)):
            raise LucidError("the model's scores are not finite", where=self.source, fix="Its weights are damaged.")
        return found

    def _best_path(self, scores: np.ndarray) -> list[int]:
        """Return the labels (words,) of the most probable sound sequence, from log-probabilities (words, labels)."""
        if not len(scores):
            return []
        total, arrows = self._penalties[-1] + scores[0], []
        for row in scores[1:]:
            reached = total[:, None] + self._penalties[:-1]  # (from, to)
            arrows.append(reached.argmax(0))
            total = reached.max(0) + row
        path = [int(total.argmax())]
        for back in reversed(arrows):
            path.append(int(back[path[-1]]))
        return path[::-1]
