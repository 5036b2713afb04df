"""Runs over HTTP: lists, curves that grow, half-written lines, names that lead elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.serving import only, running, small_model, small_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    for name, lines in {"first": 5, "recipe/tuned": 3000}.items():
        run = root / name
        run.mkdir(parents=True)
        rows = [{"step": step, "train_loss": 5.0 / step} for step in range(1, lines + 1)]
        rows.append({"step": lines, "validation_loss": 1.5})
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "first" / "samples.jsonl").write_text('{"prompt": "a", "text": "ab"}\nnot json\n')
    (root / "first" / "report.html").write_text("<p>report</p>")
    (root / "first" / "lucidlm.json").write_text("{}")
    (root / "notes").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "metrics.jsonl").write_text('{"step": 1, "train_loss": 1}\n')
    (root / "link").symlink_to(outside)
    (outside / "secret.html").write_text("secret")
    (root / "recipe" / "tuned" / "report.html").symlink_to(outside / "secret.html")
    (root / "recipe" / "tuned" / "samples.jsonl").symlink_to(outside / "metrics.jsonl")
    return root


def test_runs_are_listed(folder: Path) -> None:
    with running(only(small_model(), small_tokenizer()), runs=str(folder)) as server, server.client() as client:
        found = {one["name"]: one for one in client.get("/runs").json()["runs"]}
    assert found.keys() == {"first", "recipe/tuned"}
    assert (found["first"]["status"], found["recipe/tuned"]["status"]) == ("done", "running")
    assert found["first"]["report"]
    assert not found["recipe/tuned"]["report"]  # as it leads elsewhere
    assert found["recipe/tuned"]["last"] == {"train_loss": 5.0 / 3000, "validation_loss": 1.5}


def test_a_curve_grows(folder: Path) -> None:
    with running(only(small_model(), small_tokenizer()), runs=str(folder)) as server, server.client() as client:
        first = client.get("/runs/metrics", params={"name": "first"}).json()
        assert len(first["rows"]) == first["next"] == 6
        with (folder / "first" / "metrics.jsonl").open("a") as file:
            file.write('{"step": 6, "train_loss": 0.5}\n{"step": 7, "tr')
            file.flush()
            more = client.get("/runs/metrics", params={"name": "first", "after": first["next"]}).json()
            assert more == {"next": 7, "rows": [{"step": 6, "train_loss": 0.5}]}
        long = client.get("/runs/metrics", params={"name": "recipe/tuned"}).json()
        assert 1000 <= len(long["rows"]) < 1100
        assert long["rows"][-1] == {"step": 3000, "validation_loss": 1.5}


def test_samples_and_reports(folder: Path) -> None:
    with running(only(small_model(), small_tokenizer()), runs=str(folder)) as server, server.client() as client:
        samples = client.get("/runs/samples", params={"name": "first"}).json()["samples"]
        assert samples == [{"prompt": "a", "text": "ab"}]
        report = client.get("/runs/report", params={"name": "first"})
        assert report.text == "<p>report</p>"
        assert "sandbox" in report.headers["content-security-policy"]
        assert client.get("/runs/report", params={"name": "recipe/tuned"}).status_code == 404
        assert client.get("/runs/samples", params={"name": "recipe/tuned"}).json() == {"samples": []}


@pytest.mark.parametrize("name", ["..", "../outside", "/etc", "link", "first/../first", "", "notes"])
def test_names_that_are_no_runs(folder: Path, name: str) -> None:
    with running(only(small_model(), small_tokenizer()), runs=str(folder)) as server, server.client() as client:
        for path in ("metrics", "samples", "report"):
            assert client.get(f"/runs/{path}", params={"name": name}).status_code == 404


def test_without_a_folder_there_are_no_runs() -> None:
    with running(only(small_model(), small_tokenizer())) as server, server.client() as client:
        assert client.get("/runs").status_code == 404
