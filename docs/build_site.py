"""How `make docs` builds the site: hooks of mkdocs.

The Python of the pages in `principles/` runs when the site is built, and what a block prints stands below it. READMEs are
the home pages, and links to files beside `docs/` lead to the repository.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import io
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
HOMES = {"README.md": "index.md", "README.zh-CN.md": "zh-CN/index.md"}
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\(|src=\")([^)\"\s:#]+)(?=[)\"#])")


def run_blocks(markdown: str, where: str) -> Iterator[str]:
    """Yield what each Python block of a page prints, run in order and with the same names.

    Parameters
    ----------
    where: the page, for tracebacks.

    Raises
    ------
    Exception: whatever a block raises, with a note of the page and the block.
    """
    names: dict[str, object] = {"__name__": where}
    for number, block in enumerate(PYTHON.findall(markdown), 1):
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(block, f"{where}, block {number}", "exec"), names)
        except Exception as error:
            error.add_note(f"In {where}, block {number}:\n{block}")
            raise
        yield printed.getvalue()


def shown(printed: str) -> str:
    """Return what a block printed as Markdown: a picture if it is SVG, a table if it is one, else text as it is."""
    if printed.startswith("<svg"):
        title = re.search("<title>(.*?)</title>", printed)
        assert title is not None, "a picture needs a title, for those who do not see it"
        data = base64.b64encode(printed.encode()).decode()
        return f"![{unescape(title[1])}](data:image/svg+xml;base64,{data})"
    if printed.startswith("|"):
        return printed.strip()
    return f"```text\n{printed.rstrip()}\n```" if printed else ""


@functools.cache
def folder(page: str) -> Path:
    """Return a new folder for what the blocks of a page write, until the program ends.

    Each language has one of its own in it. What both may use, since it takes long to compute, they put above: `../curve`.
    """
    made = tempfile.mkdtemp(prefix=f"lucidlm-{page}-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def with_results(markdown: str, where: str) -> str:
    """Return a page with what its Python blocks print below each of them."""
    results = run_blocks(markdown, where)
    return PYTHON.sub(lambda found: f"{found[0]}\n\n{shown(next(results))}", markdown)


def with_site_links(markdown: str, source: str, repository: str) -> str:
    """Return a page in which links lead to pages of the site, or into the repository where they leave it.

    Parameters
    ----------
    source: the page's file in the repository, such as `docs/zh-CN/data.md`.
    """
    here = posixpath.dirname(_place(source) or "")

    def moved(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[2]))
        place = _place(target)
        link = f"{repository}/{target}" if place is None else posixpath.relpath(place, here or ".")
        return found[1] + link

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)


def _place(source: str) -> str | None:
    """Return where a file of the repository stands on the site; None: not there."""
    if source in HOMES:
        return HOMES[source]
    return source.removeprefix("docs/") if source.startswith("docs/") else None


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the READMEs as home pages."""
    from mkdocs.structure.files import File

    for source, place in HOMES.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Run what is to be run, and mend the links."""
    place = page.file.src_uri
    source = next((source for source, home in HOMES.items() if home == place), f"docs/{place}")
    if "principles" in Path(place).parts:
        own = folder(Path(place).stem) / ("zh-CN" if place.startswith("zh-CN/") else "en")
        shutil.rmtree(own, ignore_errors=True)  # of an earlier build, under `mkdocs serve`
        own.mkdir()
        with contextlib.chdir(own):
            markdown = with_results(markdown, source)
    return with_site_links(markdown, source, f"{config.repo_url}/blob/main")


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Say which language a page is in: the theme knows one for all."""
    chinese = page.file.src_uri.startswith("zh-CN/")
    return output.replace('<html lang="en"', '<html lang="zh-CN"', 1) if chinese else output
