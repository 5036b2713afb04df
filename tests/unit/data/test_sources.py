"""Reading sources: every format, every compression, every kind of bad input."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from lucidlm.core.errors import InputError
from lucidlm.data.formats import readers as formats
from lucidlm.data.sources.read import read_documents

ROWS = [{"text": "Hello, “world”", "label": "a"}, {"text": "你好，\n世界", "label": "b"}]


def write(path, data: str | bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def table(path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return str(path)


def json_lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


CSV = 'text,label\n"Hello, “world”",a\n"你好，\n世界",b\n'


@pytest.mark.parametrize(
    ("name", "data", "lines"),
    [
        ("a.jsonl", json_lines(ROWS), [1, 2]),
        ("a.ndjson", "\n".join(json.dumps(row) for row in ROWS) + "\n\n", [1, 2]),
        ("a.json", json.dumps(ROWS), [1, 1]),
        ("a.json", json.dumps(ROWS, indent=1), [2, 6]),
        ("a.json", json_lines(ROWS), [1, 2]),
        ("a.csv", CSV, [2, 3]),
        ("a.csv", "\ufeff" + CSV.replace("\n", "\r\n").replace("，\r\n", "，\n"), [2, 3]),
    ],
)
def test_rows_become_documents(tmp_path, name, data, lines):
    path = write(tmp_path / name, data)
    documents = list(read_documents(path, label_field="label"))
    assert [(document.text, document.label) for document in documents] == [(row["text"], row["label"]) for row in ROWS]
    assert [document.where for document in documents] == [f"{path}:{line}" for line in lines]


def test_parquet(tmp_path):
    path = table(tmp_path / "a.parquet")
    documents = list(read_documents(path, label_field="label"))
    assert [(document.text, document.label, document.where) for document in documents] == [
        ("Hello, “world”", "a", f"{path}:1"),
        ("你好，\n世界", "b", f"{path}:2"),
    ]


def test_tsv_takes_quotes_as_they_are(tmp_path):
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"Well" he said\t1\n')
    [document] = read_documents(path, label_field="label")
    assert (document.text, document.label) == ('"Well" he said', "1")


def test_other_fields_travel_in_meta_and_labels_become_strings(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"review": "x", "stars": 5, "id": 7}\n')
    [document] = read_documents(path, text_field="review", label_field="stars")
    assert (document.text, document.label, document.meta) == ("x", "5", {"id": 7})


@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_a_text_file_is_a_document(tmp_path, name):
    path = write(tmp_path / name, "\ufeffone\r\n\r\ntwo\n")
    [document] = read_documents(path)
    assert (document.text, document.where) == ("one\r\n\r\ntwo", path)


def test_a_long_text_file_is_cut_at_empty_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "PIECE", 20)
    text = "one two\nthree\n\nfour é\n\nfive six\nseven eight nine ten eleven\n" + "中" * 50
    path = write(tmp_path / "a.txt", text)
    documents = list(read_documents(path))
    assert [document.text for document in documents[:3]] == ["one two\nthree", "four é", "five six"]
    assert [document.where for document in documents[:3]] == [f"{path}:{line}" for line in (1, 4, 6)]
    assert "".join("".join(document.text for document in documents).split()) == "".join(text.split())
    assert all(len(document.text) <= 20 for document in documents)


def test_html(tmp_path):
    path = write(tmp_path / "a.html", "<html><body><nav>menu</nav><p>One</p><p>Two &amp; three</p></body></html>")
    [document] = read_documents(path)
    assert document.text == "One\n\nTwo & three"


def test_html_in_the_encoding_it_declares(tmp_path):
    path = write(
        tmp_path / "a.htm", "<html><head><meta charset='gbk'></head><body>中文页面</body></html>".encode("gbk")
    )
    [document] = read_documents(path)
    assert document.text == "中文页面"


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_other_encodings(tmp_path, name, encoding):
    text = "中文\n文本" if name == "a.txt" else json.dumps({"text": "中文\n文本"}, ensure_ascii=False)
    path = write(tmp_path / name, text.encode(encoding))
    [document] = read_documents(path, encoding=encoding)
    assert document.text == "中文\n文本"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("members", [1, 3])
def test_compressed_files(tmp_path, suffix, members):
    pack = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    lines = json_lines([{"text": f"text {i} " + "x" * 1000} for i in range(300)]).encode()
    size = -(-len(lines) // members)
    data = b"".join(pack(lines[start : start + size]) for start in range(0, len(lines), size))
    path = write(tmp_path / f"a.jsonl{suffix}", data)
    assert [document.text.split()[1] for document in read_documents(path)] == [str(i) for i in range(300)]
    path = write(tmp_path / f"b.jsonl{suffix}", data[:-50])
    with pytest.raises(InputError, match="damaged or cut short"):
        list(read_documents(path))
    path = write(tmp_path / f"c.jsonl{suffix}", b"not compressed at all")
    with pytest.raises(InputError, match="damaged or cut short"):
        list(read_documents(path))


def test_a_folder_is_read_in_order_of_name(tmp_path):
    for name in ("b/2.txt", "a.txt", "b/1.md", "b/c/3.txt", ".hidden/4.txt", "picture.png"):
        write(tmp_path / name, name)
    skipped = Counter()
    assert [document.text for document in read_documents(str(tmp_path), skipped=skipped)] == [
        "a.txt",
        "b/1.md",
        "b/2.txt",
        "b/c/3.txt",
    ]
    assert skipped == {"file of a type that is not known": 1}


def test_files_behind_a_url(tmp_path):
    import fsspec

    system = fsspec.filesystem("memory")
    for name in ("b.txt", "a.txt"):
        system.pipe(f"/corpus/{name}", name.encode())
    assert [document.text for document in read_documents("memory://corpus")] == ["a.txt", "b.txt"]
    assert [document.text for document in read_documents("memory://corpus/b.txt")] == ["b.txt"]
    with pytest.raises(InputError, match=r"memory:.*nowhere"):
        list(read_documents("memory://corpus/nowhere.txt"))


BAD = [
    ("a.jsonl", b'{"text": "ok"}\n{"text": \n{"text": "ok"}\n', 2, "not valid JSON", "broken JSON", 2),
    ("a.jsonl", b'{"text": "ok"}\n["text"]\n', 2, "holds a list, not an object", "not an object", 1),
    (
        "a.jsonl",
        b'{"text": "ok"}\n{"lable": 1, "txt": "x"}\n',
        2,
        r'field "text" is missing .fields found: lable, txt',
        'missing field "text"',
        1,
    ),
    ("a.jsonl", b'{"text": "ok"}\n{"text": null}\n', 2, 'field "text" is empty', 'missing field "text"', 1),
    ("a.jsonl", b'{"text": "ok"}\n{"text": 5}\n', 2, 'field "text" holds a int', "text is not a string", 1),
    ("a.jsonl", b'{"text": "ok"}\n{"text": "\\ud800"}\n', 2, "half of a character", "broken character", 1),
    (
        "a.jsonl",
        b'{"text": "ok"}\n{"text": "\xff"}\n{"text": "ok"}\n',
        2,
        "byte 0xff at offset 25.*--encoding",
        "wrong encoding",
        2,
    ),
    (
        "a.csv",
        b"text,label\nok,1\none,2,3\nok,1\n",
        3,
        "has 3 columns where the header has 2",
        "wrong number of columns",
        2,
    ),
    ("a.csv", b"text,label\nok,1\n\xff\xfe,2\nok,1\n", 3, "byte 0xff at offset 16", "wrong encoding", 2),
    ("a.csv", b'text,label\nok,1\n"open,2\nok,1\n', 3, "is a quote left open", "broken row", 1),
    ("a.json", b'[{"text": "ok"},\n{"text" "x"}]', 2, "not valid JSON", "broken JSON", 1),
    ("a.json", b'[{"text": "ok"}\n', 2, "not valid JSON", "broken JSON", 1),
]


@pytest.mark.parametrize(("name", "data", "line", "message", "reason", "kept"), BAD)
def test_bad_rows_are_named_or_skipped_and_counted(tmp_path, name, data, line, message, reason, kept):
    path = write(tmp_path / name, data)
    with pytest.raises(InputError, match=message) as caught:
        list(read_documents(path))
    assert caught.value.where == f"{path}:{line}"
    assert "--on-error skip" in str(caught.value)
    skipped = Counter()
    assert len(list(read_documents(path, on_error="skip", skipped=skipped))) == kept
    assert set(skipped) == {reason}


def test_lines_lost_to_an_open_quote_are_all_counted(tmp_path):
    path = write(tmp_path / "a.csv", "text\nok\n" + '"open\n' + "lost\n" * 10)
    skipped = Counter()
    assert len(list(read_documents(path, on_error="skip", skipped=skipped))) == 1
    assert skipped == {"broken row": 11}


def test_a_missing_label_is_named(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\nfine,\n")
    with pytest.raises(InputError, match=r'a.csv:2: field "label" is empty'):
        list(read_documents(path, label_field="label"))


def test_text_in_another_encoding_is_never_guessed(tmp_path):
    path = write(tmp_path / "a.txt", "line\nna\u00efve\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"a.txt:2: is not text in utf-8: byte 0xef at offset 7.*--encoding"):
        list(read_documents(path))
    [document] = read_documents(path, encoding="latin-1")
    assert document.text == "line\nnaïve"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: write(folder / "a.txt", " \n"), "holds no documents"),
        (lambda folder: write(folder / "a.jsonl", ""), "holds no documents"),
        (lambda folder: write(folder / "a.csv", "text\n"), "holds no documents"),
        (
            lambda folder: write(folder / "a.csv", "txt,label\nx,y\n"),
            'field "text" is missing .*txt, label.*--text-field',
        ),
        (lambda folder: write(folder / "a.pdf", "x"), r"a.pdf: .*not known.*\.jsonl.*\.gz"),
        (lambda folder: write(folder / "a.parquet", "x"), "not a sound parquet file"),
        (lambda folder: str(folder), "holds no files of a known type"),
        (lambda folder: str(folder / "nowhere.txt"), "no such file or folder.*pypi:"),
        (lambda folder: "nothing:abc", "no source called 'nothing'.*hf, pypi"),
        (lambda folder: "nothing://abc", "cannot be opened"),
        (lambda folder: "hf:imdb", "not of the form"),
    ],
)
def test_sources_that_cannot_be_read(tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        list(read_documents(make(tmp_path)))


def test_when_all_is_left_out_the_reasons_are_given(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": 1}\n{"b": 1}\n')
    with pytest.raises(InputError, match=r'all was left out .2 × missing field "text"'):
        list(read_documents(path, on_error="skip"))


def test_an_unknown_encoding_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no encoding called 'utf-9'"):
        list(read_documents(write(tmp_path / "a.txt", "x"), encoding="utf-9"))


def test_real_files(shared_data):
    documents = list(read_documents(str(shared_data / "sentiment" / "sst2" / "test.jsonl"), label_field="label"))
    assert len(documents) == 1821
    assert {document.label for document in documents} == {"negative", "positive"}
    assert sum(1 for _ in read_documents(str(shared_data / "pretraining" / "tang-poems-zh.jsonl"))) == 16_007
