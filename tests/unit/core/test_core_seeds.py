"""Named streams of random numbers from one seed."""

from __future__ import annotations

import torch

from lucidlm.core.seeds import derive, numpy_generator, torch_generator


def test_a_stream_depends_on_the_seed_and_on_every_name() -> None:
    streams = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", "b")]
    assert len({derive(*stream) for stream in streams}) == len(streams)


def test_a_stream_is_the_same_everywhere() -> None:
    assert derive(0, "weights") == 7388263408636359099
    assert 0 <= derive(123, "x") < 2**63


def test_generators_repeat() -> None:
    assert torch.equal(
        torch.rand(5, generator=torch_generator(3, "x")), torch.rand(5, generator=torch_generator(3, "x"))
    )
    assert (numpy_generator(3, "x").random(5) == numpy_generator(3, "x").random(5)).all()
    assert (numpy_generator(3, "x").random(5) != numpy_generator(3, "y").random(5)).any()


def test_streams_do_not_touch_the_global_one() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    torch.rand(100, generator=torch_generator(0, "x"))
    assert torch.equal(torch.rand(3), expected)
