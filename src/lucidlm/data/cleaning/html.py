"""HTML to plain text: what a reader of the page would read, lines and paragraphs kept apart; and what HTML is.

Text that speaks of tags (`the <b> tag`), code (`List<String>`) and escaped characters (`AT&amp;T`) are no HTML. Left to
itself ("auto") a text is HTML only if all of it is:

- a page: it begins with a doctype or the tag `<html>`, and another follows or `</html>` ends it;
- a fragment: it begins with a block (`<p>`, `<div>`, `<ul>`, `<table>` …), ends with a tag, and all blocks are closed;
- prose with HTML's line breaks: `<br>` stands between sentences or words, not for itself (`the <br> tag`).
"""

from __future__ import annotations

import html
import re
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from selectolax.lexbor import LexborHTMLParser

Html = Annotated[
    Literal["auto", "yes", "no"],
    # What YAML makes of yes and no, and what earlier versions wrote.
    BeforeValidator(lambda value: {True: "yes", False: "no"}[value] if isinstance(value, bool) else value),
    Field(description="Whether texts are HTML: all, none, or those that show it (auto)."),
]
"""Whether texts are HTML: all of them, none, or those that show it."""

UNREAD = ["head", "script", "style", "noscript", "template", "nav", "iframe", "svg"]
PARAGRAPHS = "p, h1, h2, h3, h4, h5, h6, blockquote, pre, ul, ol, dl, table, article, section, figure, header, footer"
LINES = "div, li, dt, dd, tr, hr, figcaption, caption"

# Control characters, which no page needs, stand where breaks belong while the page's own white space is folded.
_PARAGRAPH, _LINE, _BR, _PRE = "\x1c", "\x1d", "\x1e", "\x1f"
_BREAKS = re.compile("[ \x1c-\x1e]*[\x1c-\x1e][ \x1c-\x1e]*")


def html_to_text(html: str) -> str:
    """Return the text of a page or fragment, without scripts, styles and navigation.

    White space is folded as a browser does, except inside `<pre>`; paragraphs are set apart by an empty line.
    """
    tree = LexborHTMLParser(html)
    tree.strip_tags(UNREAD, recursive=True)
    if tree.body is None:
        return ""
    preformatted = []
    for node in tree.css("pre"):
        preformatted.append(node.text())
        node.replace_with(f"{_PARAGRAPH}{_PRE}{_PARAGRAPH}")
    for selector, mark in ((PARAGRAPHS, _PARAGRAPH), (LINES, _LINE), ("br", _BR), ("td, th", " ")):
        for node in tree.css(selector):
            node.insert_before(mark)
            node.insert_after(mark if mark != _BR else "")
    text = re.sub(r"[ \t\n\r\f]+", " ", tree.body.text())
    text = _BREAKS.sub(lambda run: "\n\n" if _PARAGRAPH in run[0] or run[0].count(_BR) > 1 else "\n", text)
    pieces = iter(preformatted)
    return re.sub(_PRE, lambda _: next(pieces, ""), text).strip()


# ---------------------------------------------------------------------- what is HTML

_OPTIONAL = "dd|dt|li|p|tbody|td|tfoot|th|thead|tr"
"""Blocks that HTML lets stay open."""
_BLOCKS = (
    "address|article|aside|blockquote|body|center|details|div|dl|fieldset|figure|footer|form|h[1-6]|header|main|nav|ol|pre"
    f"|section|table|ul|{_OPTIONAL}"
)
_INLINE = (
    "a|abbr|b|big|cite|code|del|em|font|i|ins|kbd|label|mark|q|s|samp|small|span|strike|strong|sub|summary|sup|tt|u|var"
)
_ATTRIBUTES = r"(?:\s+[\w:-]++(?:\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>=]++))?)*+\s*/?"
_SPACE = r"(?:\s++|<!--(?:[^-]++|-(?!->))*+-->)*+"
_BREAK = rf"<br{_ATTRIBUTES}>"

PAGE = re.compile(rf"{_SPACE}(?:<\?xml\b[^<>]*>{_SPACE})?<(?:!doctype\s+html|html)\b[^<>]*>", re.IGNORECASE)
GOES_ON = re.compile(rf"{_SPACE}</?[a-z]", re.IGNORECASE)
BLOCK = re.compile(rf"<(/?)({_BLOCKS}){_ATTRIBUTES}>", re.IGNORECASE)
FIRST = re.compile(rf"{_SPACE}<({_BLOCKS}){_ATTRIBUTES}>", re.IGNORECASE)
LAST = re.compile(rf"(?:</(?:{_BLOCKS}|{_INLINE})\s*>|<(?:br|hr|img){_ATTRIBUTES}>|-->)\s*\Z", re.IGNORECASE)
BREAKS = re.compile(rf"{_BREAK}(?:\s*+{_BREAK})*+", re.IGNORECASE)
NEXT = re.compile(r"\S")
OPENING, CLOSING = "\"'`([{“‘«", ".,;:)]}"

LINE_END = re.compile(rf"<(?:br|hr){_ATTRIBUTES}>[ \t]*\n?", re.IGNORECASE)
BLOCK_END = re.compile(r"</(?:p|div|li|tr|h[1-6]|blockquote)\s*>[ \t]*\n?", re.IGNORECASE)
PAIR = re.compile(rf"<({_INLINE}){_ATTRIBUTES}>([^<>]*)</\1\s*>", re.IGNORECASE)
TAG = re.compile(rf"</?(?:{_BLOCKS}|{_INLINE}|img){_ATTRIBUTES}>", re.IGNORECASE)
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,30});")


def plain_text(text: str, mode: Html = "auto") -> str:
    """Return what a reader would read of `text`, if it is HTML, else the text as it is.

    Pages and fragments are folded as a browser does; in other texts lines stay, and tags and entities are replaced.
    """
    if mode == "no" or not ("<" in text or (mode == "yes" and "&" in text)):
        return text
    if (begins := PAGE.match(text)) and (
        mode == "yes" or GOES_ON.match(text, begins.end()) or text[-1000:].rstrip().lower().endswith("</html>")
    ):
        return html_to_text(text)
    if _is_fragment(text):
        return html_to_text(text) or text
    if mode == "yes":
        text = TAG.sub("", BLOCK_END.sub("\n", LINE_END.sub("\n", text)))
    elif _is_broken_by_tags(text):
        text = LINE_END.sub("\n", text)
        while (stripped := PAIR.sub(r"\2", text)) != text:
            text = stripped
    else:
        return text
    return ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def plain_fields(value: Any) -> Any:
    """Return the value of a field, or a row of them, with all strings in it read as HTML; names of fields stay."""
    if isinstance(value, str):
        return plain_text(value, "yes")
    if isinstance(value, dict):
        return {name: plain_fields(held) for name, held in value.items()}
    return [plain_fields(held) for held in value] if isinstance(value, list) else value


def _is_fragment(text: str) -> bool:
    """Return whether all of a text stands in blocks that are closed."""
    if (first := FIRST.match(text)) is None or not LAST.search(text, max(0, len(text) - 1000)):
        return False
    tags = [(closing, name.lower()) for closing, name in BLOCK.findall(text)]
    opened = Counter(name for closing, name in tags if not closing)
    closed = Counter(name for closing, name in tags if closing)
    optional = _OPTIONAL.split("|")
    return first[1].lower() in closed and all(opened[name] == closed[name] for name in opened if name not in optional)


def _is_broken_by_tags(text: str) -> bool:
    """Return whether `<br>` ends lines in a text, more often than it stands there for itself."""
    ends = [_ends_a_line(text, found) for found in BREAKS.finditer(text)]
    return ends.count(True) > ends.count(False)


def _ends_a_line(text: str, found: re.Match[str]) -> bool:
    """Return whether the break, or several, that was found in a text ends a line; else the text speaks of it."""
    before, after = text[max(0, found.start() - 1) : found.start()], text[found.end() : found.end() + 1]
    several = "<" in found[0][1:]
    if (before or "\n") == (after or "\n") == "\n":
        return True
    if (before or " ").isspace():
        if after and not after.isspace():
            return after.isalnum() or after in OPENING or (several and after not in CLOSING)
        following = NEXT.search(text, found.end())
        return several and not (following is not None and following[0].islower())
    return several or after.isalnum() or not (before in OPENING or (after != "" and after in CLOSING))
