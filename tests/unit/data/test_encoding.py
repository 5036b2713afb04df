"""Encodings: marks, trials, what is said, and what is refused."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from lucidlm.core.errors import InputError
from lucidlm.data.formats import encoding
from lucidlm.data.sources.read import read_documents

CHINESE = ["这部电影很好看，我们都喜欢。", "不好看，浪费了一个晚上的时间。"]
RUSSIAN = ["Этот фильм мне очень понравился.", "Привет, мир."]
OTHERS = {
    "euc-kr": "이 영화는 정말 재미있었습니다. 배우들의 연기도 훌륭하고 이야기도 좋았어요.",
    "euc-jp": "この映画は本当に面白かったです。俳優の演技も素晴らしく、物語も良かった。",
    "shift-jis": "この映画は本当に面白かったです。俳優の演技も素晴らしく、物語も良かった。",
    "big5": "這部電影很好看，演員的表演也非常出色，我們都喜歡。",
    "cp1251": "Этот фильм мне очень понравился, мама мыла раму",
    "koi8-r": "Этот фильм мне очень понравился, мама мыла раму",
    "latin-1": "Größe, Füße, Äpfel über Öl, naïve créée à Évian",
    "cp1252": "L’été dernier à Orléans — « déjà vu »",
    "cp1253": "Γειά σου Κόσμε, αυτή είναι μια ωραία ταινία",
    "cp1256": "هذا فيلم جميل جدا وأنا أحب الممثلين",
    "tis-620": "ภาพยนตร์เรื่องนี้ดีมาก",
}


def data_of(name: str, texts: list[str]) -> str:
    rows = [{"text": text, "label": "1"} for text in texts]
    return {
        "a.txt": "\n".join(texts),
        "a.md": "\n".join(texts),
        "a.csv": "text,label\n" + "".join(f'"{text}",1\n' for text in texts),
        "a.tsv": "text\tlabel\r\n" + "".join(f"{text}\t1\r\n" for text in texts),
        "a.json": json.dumps(rows, ensure_ascii=False, indent=1),
        "a.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "a.html": f"<p>{'</p><p>'.join(texts)}</p>",
    }[name]


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def text_of(source: str, **options) -> list[str]:
    return "\n".join(document.text for document in read_documents(source, **options)).split()


NAMES = ["a.txt", "a.md", "a.csv", "a.tsv", "a.json", "a.jsonl", "a.html"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "gb18030"])
@pytest.mark.parametrize("texts", [CHINESE, RUSSIAN, ["text", "label"]])
def test_marks_are_heeded(tmp_path, name, codec, texts, capsys):
    mark = b"" if codec == "utf-8-sig" else "\ufeff".encode(codec)
    source = write(tmp_path / name, mark + data_of(name, texts).encode(codec))
    assert text_of(source) == " ".join(texts).split()
    assert "read as" not in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("codec", "texts"),
    [("gb18030", CHINESE), ("gbk", CHINESE), ("gb2312", CHINESE)]
    + [(codec, texts) for codec in ("utf-16-le", "utf-16-be") for texts in (CHINESE, RUSSIAN, ["text", "label"])],
)
def test_what_a_trial_finds_is_said_in_one_line(tmp_path, name, codec, texts, capsys):
    source = write(tmp_path / name, data_of(name, texts).encode(codec))
    assert text_of(source) == " ".join(texts).split()
    said = "gb18030" if codec.startswith("gb") else codec
    assert f"{source}: read as {said}" in capsys.readouterr().err
    assert text_of(source, encoding=codec) == " ".join(texts).split()
    assert "read as" not in capsys.readouterr().err


@pytest.mark.parametrize("codec", OTHERS)
@pytest.mark.parametrize("words", [1, 100])
def test_other_encodings_are_refused_and_named_by_the_user(tmp_path, codec, words):
    text = " ".join(OTHERS[codec].split()[:words])
    source = write(tmp_path / "a.csv", f'text,label\n"{text}",1\n'.encode(codec))
    with pytest.raises(InputError, match=r"a.csv:2: is not text in utf-8: byte 0x.. at offset 1\d.*--encoding"):
        text_of(source)
    assert text_of(source, encoding=codec) == text.split()


def test_an_encoding_that_is_asked_for_is_kept_to(tmp_path, capsys):
    source = write(tmp_path / "a.txt", CHINESE[0].encode("gb18030"))
    with pytest.raises(InputError, match=r"a.txt:1: is not text in utf-8"):
        text_of(source, encoding="utf-8")
    source = write(tmp_path / "a.txt", "été".encode())
    assert text_of(source, encoding="latin-1") == ["Ã©tÃ©"]
    assert "read as latin-1, as it was asked for, though its bytes are those of utf-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("codec", "asked"),
    [("utf-16", "latin-1"), ("utf-8-sig", "gb18030"), ("utf-16", "utf-8"), ("utf-16-le", "utf-16-be")],
)
def test_a_mark_that_contradicts_what_is_asked_for_is_an_error(tmp_path, codec, asked):
    data = ("\ufeff" if codec == "utf-16-le" else "") + "text"
    source = write(tmp_path / "a.txt", data.encode(codec))
    with pytest.raises(InputError, match=f"begins with the byte-order mark of .*, not of {asked}"):
        text_of(source, encoding=asked)


@pytest.mark.parametrize("asked", ["utf-8", "utf-8-sig", "UTF8"])
def test_a_mark_may_be_asked_for(tmp_path, asked):
    assert text_of(write(tmp_path / "a.txt", b"\xef\xbb\xbfone"), encoding=asked) == ["one"]
    assert text_of(write(tmp_path / "a.txt", "one".encode("utf-16")), encoding="utf-16") == ["one"]
    assert text_of(write(tmp_path / "a.txt", "\ufeffone".encode("utf-16-le")), encoding="utf-16-le") == ["one"]


@pytest.mark.parametrize("asked", ["base64", "rot13", "utf-9", "a\0b", "", "undefined"])
def test_what_is_no_encoding_of_text_is_named(tmp_path, asked):
    with pytest.raises(InputError, match=r"no encoding called .*gb18030"):
        text_of(write(tmp_path / "a.txt", b"one"), encoding=asked)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.json"])
def test_a_file_that_goes_on_otherwise_than_it_began_is_an_error(tmp_path, monkeypatch, name):
    monkeypatch.setattr(encoding, "HEAD", 4_000)
    for codec, bad in (("gb18030", b"\xff"), ("utf-8", b"\xb5"), ("utf-16-le", b"\x00\xdc\x00\xdc")):
        data = data_of(name, CHINESE * 1000).encode(codec)
        half = data.index("不".encode(codec), len(data) // 2)
        source = write(tmp_path / name, data[:half] + bad + data[half:])
        with pytest.raises(InputError, match=rf"{name}:\d+: is not text in {codec}"):
            text_of(source)


def test_lines_in_the_wrong_encoding_are_skipped_and_counted(tmp_path):
    lines = [json.dumps({"text": text}, ensure_ascii=False).encode("gb18030") for text in CHINESE * 3]
    lines[3] = lines[3].replace("不".encode("gb18030"), b"\xff\xff")
    source = write(tmp_path / "a.jsonl", b"\n".join(lines))
    skipped: Counter[str] = Counter()
    assert len(text_of(source, encoding="gb18030", on_error="skip", skipped=skipped)) == 5
    assert skipped == {"wrong encoding": 1}


def test_a_character_may_be_cut_where_the_first_bytes_end(tmp_path, monkeypatch):
    text = "我们都喜欢这部电影" * 100
    for codec in ("utf-8", "gb18030"):
        for head in range(300, 306):
            monkeypatch.setattr(encoding, "HEAD", head)
            assert text_of(write(tmp_path / "a.txt", text.encode(codec))) == [text]


def test_compressed_files_are_recognised_too(tmp_path):
    source = write(tmp_path / "a.csv.gz", gzip.compress(data_of("a.csv", CHINESE).encode("gb18030")))
    assert text_of(source) == CHINESE


def test_the_encoding_that_a_page_declares_goes_before_a_trial(tmp_path):
    page = "<html><head><meta charset='big5'></head><body>這部電影很好看</body></html>"
    assert text_of(write(tmp_path / "a.html", page.encode("big5"))) == ["這部電影很好看"]
    page = "<html><head><meta charset='nonsense'></head><body>这部电影很好看</body></html>"
    assert text_of(write(tmp_path / "a.html", page.encode("gbk"))) == ["这部电影很好看"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-16"])
def test_lines_across_the_places_where_a_file_is_cut(tmp_path, monkeypatch, end, codec):
    rows = [{"text": "x" * size} for size in (*range(1, 40), 200, 3)]
    data = end.join(map(json.dumps, rows)).encode(codec)
    for head in range(30, 40):
        monkeypatch.setattr(encoding, "HEAD", head)
        found = list(read_documents(write(tmp_path / "a.jsonl", data)))
        assert [len(document.text) for document in found] == [len(row["text"]) for row in rows]
        assert [document.where.rpartition(":")[2] for document in found] == [str(n + 1) for n in range(len(rows))]


def test_a_line_without_end_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "HEAD", 100)
    monkeypatch.setattr(encoding, "LONGEST_LINE", 1000)
    for codec in ("utf-8", "utf-16"):
        with pytest.raises(InputError, match=r"a.jsonl:2: is a line of more than"):
            text_of(write(tmp_path / "a.jsonl", ('{"text": "a"}\n' + "x" * 2000).encode(codec)))
