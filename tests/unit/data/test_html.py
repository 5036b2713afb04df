"""HTML: what is taken for it, and what a reader of the page would read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lucidlm.core.errors import InputError
from lucidlm.data.cleaning.clean import CleanConfig, Cleaner
from lucidlm.data.cleaning.html import html_to_text, plain_text
from lucidlm.data.corpus.prepare import PrepareConfig
from lucidlm.data.sources.read import read_documents, read_rows
from lucidlm.tasks import read_examples, tasks
from lucidlm.train.finetune.config import FinetuneConfig


def test_html_page_to_text():
    page = """<!doctype html><html><head><title>T</title><style>p {}</style></head><body><nav>menu</nav>
    <h1>Hi &amp; bye</h1><p>One <b>bold</b>\n line<br>two</p><ul><li>x<li>y</ul><pre>k  l\nm</pre>
    <table><tr><td>1<td>2<tr><td>3</table><script>var x = 1</script></body></html>"""
    assert html_to_text(page) == "Hi & bye\n\nOne bold line\ntwo\n\nx\ny\n\nk  l\nm\n\n1 2\n3"


PROSE = [
    "In HTML the <b> tag makes text bold and <i> makes it slanted.",
    "a<b>c and d</b",
    "List<String> names = new ArrayList<>(); Map<String, List<Integer>> m;",
    "#include <stdio.h>\nint main() { return a<b && c>d; }",
    "std::vector<p> q; f<div>(x);",
    "AT&amp;T, &lt;b&gt;bold&lt;/b&gt;, R&D, &nbsp;",
    "<b>bold</b> and &amp;",
    "x < y > z, <3, <- and ->",
    "<p> is the paragraph tag, and </p> closes it.",
    "<div> and <span> differ",
    "<ul> <li> </ul>",
    "Use <br> to break a line.",
    'the tag `<br>`, the tag "<br />" and (<br>)',
    "Tags: <p>,<br>,<hr>",
    "the tag is <br>.",
    "Write <br><br> for an empty line.",
    "<html> is the root tag of every page",
    "<!DOCTYPE html> goes first",
    "<think>hm</think> <user> hi </user> <grin>",
    "[INST] <<SYS>> be kind <</SYS>> [/INST]",
    "<|endoftext|> <s> </s>",
    "<svg><path d='M0'/></svg>",
    "<?xml version='1.0'?><note>x</note>",
]


@pytest.mark.parametrize("text", PROSE)
def test_text_that_speaks_of_tags_is_left_as_it_is(text):
    assert plain_text(text) == text
    assert Cleaner()(text) == text


HTML = [
    ("<p>Hello</p>", "Hello"),
    ("<p>One</p>\n<p>Two &amp; <b>three</b></p>\n", "One\n\nTwo & three"),
    ("<!-- c --><div class='x' hidden><h1>T</h1>text<ul><li>a<li>b</ul></div>", "T\n\ntext\n\na\nb"),
    ("<TABLE border=1><TR><TD>1<TD>2</TABLE>", "1 2"),
    ("<pre>a &lt;b&gt;\n  c</pre><p>d<br></p>", "a <b>\n  c\n\nd"),
    ("<h2>Use &lt;p&gt; here</h2><p>as said</p>", "Use <p> here\n\nas said"),
    ("<!doctype html><title>t</title><p>x", "x"),
    ('<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0" "http://x">\n<html lang="en"><body>x</body></html>', "x"),
    ("<?xml version='1.0'?>\n<!-- c -->\n<html xmlns='a'><body>y</body></html>", "y"),
    ("<html><p>Hi &amp; bye</p></html>", "Hi & bye"),
    ("<html>Hi &amp; bye</html>\n", "Hi & bye"),
    ("<body>Hi &amp; bye</body>\n", "Hi & bye"),
]


@pytest.mark.parametrize(("text", "plain"), HTML)
@pytest.mark.parametrize("mode", ["auto", "yes"])
def test_pages_and_fragments_become_text(text, plain, mode):
    assert plain_text(text, mode) == plain
    assert plain_text(text, "no") == text


BROKEN = [
    ("Good<br />film", "Good\nfilm"),
    ("line one<BR>line two<br/>\nline three", "line one\nline two\nline three"),
    ("One.<br /><br />Two &amp; <i>three</i>.", "One.\n\nTwo & three."),
    ("One. <br /><br /> Two <br /><br />- three", "One. \n\nTwo \n\n- three"),
    ('He said <br /><br />"Yes"<br /><br />"No".', 'He said \n\n"Yes"\n\n"No".'),
    ("One\n<br>\nTwo", "One\n\nTwo"),
    ("The end.<br />", "The end.\n"),
    ("One.<br />Two <b>a <i>b</i></b>, the <b> tag, 2 < 3, <grin>.", "One.\nTwo a b, the <b> tag, 2 < 3, <grin>."),
]


@pytest.mark.parametrize(("text", "plain"), BROKEN)
def test_prose_that_is_broken_by_tags_gets_line_ends(text, plain):
    assert plain_text(text) == plain
    assert plain_text(text, "no") == text


def test_all_is_html_where_the_user_says_so():
    assert plain_text("the <b> tag, AT&amp;T and &lt;b&gt;", "yes") == "the  tag, AT&T and <b>"
    assert plain_text("one<br>two\nthree <FONT size=2>x</FONT>", "yes") == "one\ntwo\nthree x"


def test_long_texts_of_many_tags_take_no_time():
    for text in ("<br " * 50_000, "<i>" * 50_000 + "a<br>b", "<!--" * 50_000, "<p " + "a " * 50_000, "<p>" * 50_000):
        assert plain_text(text).count("<") <= text.count("<")


def test_what_yaml_and_earlier_versions_say(tmp_path):
    for written, meant in (("yes", "yes"), ("no", "no"), ("auto", "auto"), ("true", "yes"), ("'no'", "no")):
        assert CleanConfig(**yaml.safe_load(f"html: {written}")).html == meant
        config = FinetuneConfig(task="sentiment", model="m", data="d", **yaml.safe_load(f"html: {written}"))
        config.save(tmp_path / "config.yaml")
        assert FinetuneConfig.load(tmp_path / "config.yaml").html == meant
    with pytest.raises(InputError, match="html"):
        PrepareConfig(sources=["a"], clean={"html": "maybe"})


@pytest.fixture
def page(tmp_path: Path) -> str:
    path = tmp_path / "a.html"
    path.write_text("<p>use &lt;b&gt;</p>", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("mode", "text"), [("auto", "use <b>"), ("yes", "use <b>"), ("no", "<p>use &lt;b&gt;</p>")])
def test_pages_are_read_once(page, mode, text):
    [document] = read_documents(page, html=mode)
    assert Cleaner(CleanConfig(html=mode))(document.text, plain=document.plain) == text
    [row] = read_rows(page, html=mode)
    assert row.fields == {"text": text}


def write(path: Path, *texts: str) -> str:
    path.write_text("".join(json.dumps({"text": text, "label": "a"}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("mode", "read"),
    [
        ("auto", ["Hi & bye", "the <b> tag", "One\nTwo"]),
        ("yes", ["Hi & bye", "the  tag", "One\nTwo"]),
        ("no", ["<p>Hi &amp; bye</p>", "the <b> tag", "One<br />Two"]),
    ],
)
def test_examples_are_read_as_asked_for(tmp_path, mode, read, capsys):
    source = write(tmp_path / "a.jsonl", "<p>Hi &amp; bye</p>", "the <b> tag", "One<br />Two")
    for name in ("text-classification", "semantic-search"):
        found = read_examples(tasks.get(name), source, html=mode)
        assert [getattr(example, "text", None) or example.item for example in found] == read
        said = capsys.readouterr().err
        assert ("HTML becomes plain text in 2 examples' texts" in said) == (mode == "auto")


def test_tasks_that_keep_their_texts_change_them_only_if_asked_to(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"source": "<p>one &amp;</p>", "target": "<p>eins &amp;</p>"}\n', encoding="utf-8")
    for mode, source, target in (("auto", "<p>one &amp;</p>", "<p>eins &amp;</p>"), ("yes", "one &", "eins &")):
        [pair] = read_examples(tasks.get("translation"), str(path), html=mode)
        assert (pair.source, pair.target) == (source, target)


def test_labels_and_nested_strings_are_read_too_under_yes(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a&amp;": {"b": ["c &amp; d", 1, null]}}\n', encoding="utf-8")
    [row] = read_rows(str(path), html="yes")
    assert row.fields == {"a&amp;": {"b": ["c & d", 1, None]}}
