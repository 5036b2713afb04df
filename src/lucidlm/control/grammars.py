"""Grammars for llguidance (https://github.com/guidance-ai/llguidance) of what a text has to be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import regex

from lucidlm.control.config import ConstraintConfig
from lucidlm.control.vocabulary import llguidance
from lucidlm.core.errors import InputError

WITHOUT_SPACES = r"\p{Han}\p{Hiragana}\p{Katakana}"
"""Scripts whose words nothing separates."""

BETWEEN_WORDS = rf"(?:[^\p{{L}}\p{{M}}\p{{N}}_]|[{WITHOUT_SPACES}])"

JSON_FORM = {
    "whitespace_pattern": r"[ \t]{0,4}(\r?\n[ \t]{0,80})?",
    "json_allow_general_unicode_escapes": True,
}
"""One end of line between two marks: a small model may else write nothing but blank lines."""


def grammars(config: ConstraintConfig) -> list[tuple[str, str]]:
    """Return the grammars that a text has to obey, all at once, each with the name of what asks for it.

    Raises
    ------
    InputError: a JSON Schema is no JSON, or llguidance is not installed.
    """
    return list(_grammars(config))


def _grammars(config: ConstraintConfig) -> Iterator[tuple[str, str]]:
    matcher = llguidance().LLMatcher
    if config.choices:
        yield "choices", matcher.grammar_from_lark(f"start: {' | '.join(map(_quoted, config.choices))}")
    if config.regex is not None:
        yield "regex", matcher.grammar_from_regex(config.regex)
    if config.json_schema is not None:
        yield "json_schema", matcher.grammar_from_lark(f"start: {json_rule(_read(config.json_schema), 'json_schema')}")
    if config.grammar is not None:
        yield "grammar", matcher.grammar_from_lark(config.grammar)
    for phrase in config.required:
        yield "required", matcher.grammar_from_regex(_holding([phrase]))
    if config.forbidden:
        yield "forbidden", matcher.grammar_from_lark(f"start: TEXT\nTEXT: /(?s:.*)/ & ~/{_holding(config.forbidden)}/")


def json_rule(schema: Any, where: str) -> str:
    """Return what stands, in a grammar in Lark's syntax, for JSON that a schema finds valid; `where` it comes from.

    Raises
    ------
    InputError: it is no schema.
    """
    if not isinstance(schema, dict | bool):
        raise InputError("is neither an object nor true or false", where=where, fix="Pass a JSON Schema.")
    return f"%json {json.dumps({**schema, 'x-guidance': JSON_FORM} if isinstance(schema, dict) else schema)}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError("is nested too deeply", where="json_schema", fix="Pass a flatter schema.") from None
    except ValueError as error:
        raise InputError(f"is no JSON ({error})", where="json_schema", fix="Pass a JSON Schema.") from None


def _holding(phrases: Sequence[str]) -> str:
    """Return the pattern of texts that hold one of some phrases, wherever tokens begin and end.

    Where a phrase ends in letters or digits, a word has to end too.
    """
    return "|".join(map(_around, phrases))


def _around(phrase: str) -> str:
    before, after = (
        rf"(?:.*{BETWEEN_WORDS})?" if _in_word(phrase[0]) else ".*",
        rf"(?:{BETWEEN_WORDS}.*)?" if _in_word(phrase[-1]) else ".*",
    )
    spelt = "".join(one if one.isalnum() else rf"\x{{{ord(one):X}}}" for one in phrase)
    return f"(?s:{before}(?i:{spelt}){after})"


def _in_word(character: str) -> bool:
    return bool(regex.match(rf"[\p{{L}}\p{{M}}\p{{N}}_--{WITHOUT_SPACES}]", character, regex.VERSION1))
