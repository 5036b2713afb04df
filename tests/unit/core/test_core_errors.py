"""Errors say what, where, and what to do."""

from __future__ import annotations

from pathlib import Path

from lucidlm.core.errors import InputError, LucidError


def test_what_where_and_fix_make_one_message() -> None:
    error = InputError('field "label" is missing', where="data.jsonl:1204", fix="Fix the line.")
    assert str(error) == 'data.jsonl:1204: field "label" is missing. Fix the line.'
    assert (error.what, error.where, error.fix) == ('field "label" is missing', "data.jsonl:1204", "Fix the line.")


def test_where_and_fix_may_be_left_out() -> None:
    assert str(LucidError("it broke")) == "it broke."
    assert str(LucidError("it broke", where=Path("a/b"))) == "a/b: it broke."


def test_exit_codes() -> None:
    assert LucidError("x").exit_code == 1
    assert InputError("x").exit_code == 2
    assert isinstance(InputError("x"), LucidError)
