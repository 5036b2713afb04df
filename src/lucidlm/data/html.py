"""HTML to plain text: what a reader of the page would read, lines and paragraphs kept apart."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser

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
