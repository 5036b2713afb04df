"""Tokens as people see them, and how likely they were, in the forms of OpenAI's endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lucidlm.inference.sequence import Likelihood, SequenceState
from lucidlm.tokenize.tokenizer import Tokenizer

SPACE = "▁"
"""What stands for a space in the tokens of SentencePiece."""


def spelling(tokenizer: Tokenizer, token: int) -> bytes:
    """Return the bytes that a token stands for; of a control token its name, of a row without a token nothing."""
    name = tokenizer.core.id_to_token(token)
    if name is None:
        return b""
    if tokenizer.kind in ("bpe", "characters") and (said := tokenizer.token_bytes(token)):
        return said
    return name.replace(SPACE, " ").encode()


def shown(said: bytes) -> str:
    """Return a token's bytes as text; what is a part of a character only is spelt out, as OpenAI's endpoints do."""
    try:
        return said.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in said)


def chat_logprobs(tokenizer: Tokenizer, row: SequenceState, first: int, end: int) -> dict[str, Any]:
    """Return the likelihoods of a text's tokens `first` to `end`, as chat completions have them."""

    def told(token: int, logprob: float) -> dict[str, Any]:
        said = spelling(tokenizer, token)
        return {"token": shown(said), "logprob": _finite(logprob), "bytes": list(said)}

    return {
        "content": [
            {**told(token, likelihood.logprob), "top_logprobs": [told(*one) for one in likelihood.top]}
            for token, likelihood in _likelihoods(row, first, end)
        ],
        "refusal": None,
    }


def completion_logprobs(tokenizer: Tokenizer, row: SequenceState, first: int, end: int, offset: int) -> dict[str, Any]:
    """Return the likelihoods of a text's tokens `first` to `end`, as completions have them.

    Parameters
    ----------
    offset: characters of the text before them.
    """
    found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for token, likelihood in _likelihoods(row, first, end):
        said = shown(spelling(tokenizer, token))
        found["tokens"].append(said)
        found["token_logprobs"].append(_finite(likelihood.logprob))
        top = {shown(spelling(tokenizer, one)): _finite(logprob) for one, logprob in likelihood.top}
        found["top_logprobs"].append(top)
        found["text_offset"].append(offset)
        offset += len(said)
    return found


def _likelihoods(row: SequenceState, first: int, end: int) -> Iterator[tuple[int, Likelihood]]:
    return zip(row.tokens[first:end], row.likelihoods[first:end], strict=True)


def _finite(logprob: float) -> float:
    """Return a log-probability that JSON can hold: that of what is impossible is minus infinity."""
    return max(logprob, -9999.0)
