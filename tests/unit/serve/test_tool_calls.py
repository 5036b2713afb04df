"""Calls of tools are told from what is said, however the text is cut into pieces."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lucidlm.serve.endpoints.tool_calls import ToolCallReader

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call>'
TEXTS = {
    f"Let me look.\n{CALL}": ("Let me look.", 1),
    f"{CALL}\n{CALL}": ("", 2),
    "no call <tool_ca": ("no call <tool_ca", 0),
    "<tool_call>not json</tool_call> after": ("<tool_call>not json</tool_call> after", 0),
    '<tool_call>{"name": 3}</tool_call>': ('<tool_call>{"name": 3}</tool_call>', 0),
    "a < b <tool_call": ("a < b <tool_call", 0),
    CALL.removesuffix("</tool_call>"): ("", 1),
}


@given(st.sampled_from(sorted(TEXTS)), st.lists(st.integers(0, 80), max_size=8))
def test_calls_in_any_pieces(text: str, cuts: list[int]) -> None:
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[start:end] for start, end in pairwise(places)]
    reader, said, calls = ToolCallReader(), "", []
    for place, piece in enumerate(pieces):
        more, found = reader.push(piece, last=place == len(pieces) - 1)
        said, calls = said + more, calls + found
    expected, count = TEXTS[text]
    assert (said.strip(), len(calls)) == (expected, count)
    for call in calls:
        assert call["function"]["name"] == "weather"
        assert json.loads(call["function"]["arguments"]) == {"city": "北京"}
    assert len({call["id"] for call in calls}) == count
