"""What a webhook is told, by a server on this machine, and what nobody is."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.conftest import tiny_pretraining
from tests.webhook_listener import TOKEN, Listener, listening

from lucidlm.core.errors import InputError, LucidError
from lucidlm.train.metrics_log import MetricsLog
from lucidlm.train.pretrain.run import pretrain
from lucidlm.train.tracking import tracking as module
from lucidlm.train.tracking import webhook
from lucidlm.train.tracking.tracking import ENDED, Tracking
from lucidlm.train.tracking.webhook import VARIABLE, post, read_webhook


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setattr(webhook, "sleep", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with listening() as found:
        yield found


def trained(directory: Path) -> None:
    log = MetricsLog(directory)
    log.write(step=1, train_loss=5.5)
    log.write(step=1, validation_loss=6.0)
    log.write(step=1200, train_loss=2.5)
    log.close()


# ---------------------------------------------------------------------- the address


@pytest.mark.parametrize(
    "address", ["ftp://a.b/c", "file:///etc/passwd", "a.b/c", "https:///c", "http://[::1", "http://a/ b"]
)
def test_what_is_no_address_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(InputError, match="--webhook: is no address of the web") as caught:
        read_webhook(address)
    assert address not in str(caught.value)


def test_the_environment_has_an_address_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert read_webhook(None) is None
    monkeypatch.setenv(VARIABLE, f"https://a.b/{TOKEN}")
    found = read_webhook(None)
    assert found is not None
    assert found.get_secret_value() == f"https://a.b/{TOKEN}"
    assert TOKEN not in repr(found)
    assert read_webhook("https://c.d/e") == SecretStr("https://c.d/e")
    monkeypatch.setenv(VARIABLE, TOKEN)
    with pytest.raises(InputError, match=f"{VARIABLE}: is no address") as caught:
        read_webhook(None)
    assert TOKEN not in str(caught.value)


# ---------------------------------------------------------------------- posting


@pytest.mark.parametrize(
    ("codes", "asked", "came", "problem"),
    [
        ([200], 1, True, ""),
        ([500, 429, 200], 3, True, ""),
        ([503], 3, False, "it answered 503"),
        ([404], 1, False, "it answered 404"),
        ([302], 1, False, "it answered 302"),
        ([307], 1, False, "it answered 307"),
    ],
)
def test_it_is_tried_again_where_that_may_help(
    listener: Listener, capsys: pytest.CaptureFixture[str], codes: list[int], asked: int, came: bool, problem: str
) -> None:
    listener.codes = codes
    post(listener.secret, {"state": "finished"})
    assert (listener.asked, bool(listener.received)) == (asked, came)
    said = capsys.readouterr().err
    assert said == ("" if came else f"the webhook at 127.0.0.1 does not know how the run ended ({problem})\n")


def test_nobody_at_home_is_a_warning(listener: Listener, capsys: pytest.CaptureFixture[str]) -> None:
    listener.server.socket.close()
    post(SecretStr(f"http://127.0.0.1:{listener.server.server_port}/{TOKEN}"), {})
    said = capsys.readouterr().err
    assert "the webhook at 127.0.0.1 does not know how the run ended (" in said
    assert TOKEN not in said


# ---------------------------------------------------------------------- what is told


def test_a_run_that_fails_is_told_with_what_it_measured(tmp_path: Path, listener: Listener) -> None:
    def run() -> None:
        with Tracking(tmp_path / "model", (), listener.secret) as tracking:
            tracking.begin(None)
            trained(tmp_path / "model")
            raise LucidError("the loss is not finite", fix="Lower the rate.")

    with pytest.raises(LucidError):
        run()
    (told,) = listener.received
    assert told.pop("seconds") < 60
    assert told.pop("text").startswith("lucidlm: model failed at step 1,200: loss 2.5000, validation loss 6.0000, ")
    error = "the loss is not finite. Lower the rate."
    assert told == {
        "run": "model", "state": "failed", "step": 1200, "loss": 2.5, "validation_loss": 6.0, "error": error
    }  # fmt: skip
    assert json.loads((tmp_path / "model" / ENDED).read_text()) == {"state": "failed", "error": error}


@pytest.mark.parametrize(
    "error", [InputError("of 'a text of the data' nothing is known"), KeyError("a text of the data")]
)
def test_errors_that_may_quote_texts_are_named_only(tmp_path: Path, listener: Listener, error: Exception) -> None:
    trained(tmp_path)  # another run's: this one has not begun
    with pytest.raises(type(error)), Tracking(tmp_path, (), listener.secret):
        raise error
    (told,) = listener.received
    assert told["error"] == f"{type(error).__name__}; the run's own output says more"
    assert (told["state"], told["step"], told["loss"]) == ("failed", None, None)
    assert "a text of the data" not in json.dumps(told)
    assert not (tmp_path / ENDED).exists()


def test_a_stopped_run_is_told_and_goes_on(tmp_path: Path, listener: Listener) -> None:
    with Tracking(tmp_path, (), listener.secret) as tracking:
        tracking.begin(None)
        trained(tmp_path)
        tracking.finish(1200, {}, signal.SIGTERM)

    def go_on() -> None:
        with Tracking(tmp_path, (), listener.secret) as tracking:
            tracking.begin(1200)
            assert not (tmp_path / ENDED).exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go_on()
    assert [told["state"] for told in listener.received] == ["stopped", "stopped"]
    assert json.loads((tmp_path / ENDED).read_text())["state"] == "stopped"


def test_what_is_not_finite_is_left_out(tmp_path: Path, listener: Listener) -> None:
    with Tracking(tmp_path, (), listener.secret) as tracking:
        tracking.begin(None)
        trained(tmp_path)
        tracking.finish(1200, {"validation_loss": float("nan")}, None)
    (told,) = listener.received
    assert (told["state"], told["loss"], told["validation_loss"]) == ("finished", 2.5, None)


def test_one_rank_tells(tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank, speaks in (("1", True), ("0", False)):  # the second rank was the first to fail
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(module, "speaks_for_all", lambda speaks=speaks: speaks)
        with pytest.raises(LucidError), Tracking(tmp_path, (), listener.secret):
            raise LucidError(f"rank {rank} is out of memory")
        with Tracking(tmp_path, (), listener.secret):
            pass
    assert [(told["state"], told.get("error")) for told in listener.received] == [
        ("failed", "rank 1 is out of memory."),
        ("finished", None),
    ]


def test_sigterm_waits_until_a_failure_is_told(
    tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(module, "post", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(LucidError), Tracking(tmp_path, (), listener.secret):
        raise LucidError("x")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_whole_run_tells_and_leaves_no_trace_of_the_address(
    tmp_path: Path, tiny_data: Path, listener: Listener, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_pretraining(tiny_data)
    pretrain(config, tmp_path / "model", webhook=listener.secret.get_secret_value())
    (told,) = listener.received
    assert (told["run"], told["state"], told["step"]) == ("model", "finished", 12)
    assert told["loss"] > 0
    assert told["validation_loss"] > 0
    assert TOKEN not in "".join(capsys.readouterr())
    for path in (tmp_path / "model").rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
    with pytest.raises(InputError, match="holds a model"):
        pretrain(config, tmp_path / "model", webhook=listener.secret.get_secret_value())
    assert [one["state"] for one in listener.received] == ["finished", "failed"]
    assert listener.received[1]["step"] is None  # of the model that is there nothing is told
