"""An argument of the wrong type is named, with what was given and what is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lucidlm.core.arguments import require_count, require_path, require_text, require_texts
from lucidlm.core.errors import InputError, InputTypeError


def test_what_is_right_passes() -> None:
    assert require_text("a", "text") == "a"
    assert require_texts(("a", "b"), "texts") == ["a", "b"]
    assert require_texts(np.array(["a", "b"]), "texts") == ["a", "b"]
    assert require_texts([], "texts") == []
    assert require_path(Path("a") / "b", "model") == str(Path("a") / "b")
    assert require_count(3, "length") == 3


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (require_text, 5, r"x: is 5, of type int\. Pass one text"),
        (require_text, ["a"], r"x: is \['a'\], of type list\. Pass one text"),
        (require_texts, "abc", r"x: is 'abc', of type str\. Pass a list of texts: put it in \[ \]"),
        (require_texts, 5, r"x: is 5, of type int\. Pass a list of texts"),
        (require_texts, ["a", None], r"x\[1\]: is None, of type NoneType"),
        (require_path, 5, r"x: is 5, of type int\. Pass a path"),
        (require_count, "50", r"x: is '50', of type str\. Pass a whole number"),
        (require_count, True, r"x: is True, of type bool"),
        (require_count, 2.0, r"x: is 2\.0, of type float"),
    ],
)
def test_the_wrong_type_is_named(check: Any, value: object, message: str) -> None:
    with pytest.raises(InputTypeError, match=message) as caught:
        check(value, "x")
    assert isinstance(caught.value, InputError)
    assert isinstance(caught.value, TypeError)


def test_long_values_are_cut() -> None:
    with pytest.raises(InputTypeError, match="…") as caught:
        require_text(list(range(1000)), "x")
    assert len(str(caught.value)) < 200
