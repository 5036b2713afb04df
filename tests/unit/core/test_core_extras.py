"""A package that is missing is named, with the command that installs it."""

from __future__ import annotations

import pytest

from lucidlm.core.errors import InputError
from lucidlm.core.extras import require_package


def test_a_package_that_is_there_is_enough() -> None:
    require_package("json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the package no_such is not installed. Install it: pip install no_such."),
        (
            {"extra": "serve", "name": "no-such", "where": "--out", "instead": "write .html"},
            "--out: the package no-such is not installed. Install it: pip install 'lucidlm[serve]', or write .html.",
        ),
    ],
)
def test_one_that_is_missing_is_named_with_what_to_do(settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        require_package("no_such", **settings)
    assert str(caught.value) == message
