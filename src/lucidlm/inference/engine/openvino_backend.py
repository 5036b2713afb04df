"""OpenVINO computes: on CPUs the fastest there is, with weights in int8 or int4."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import openvino
import torch
from openvino import Shape
from torch import Tensor

from lucidlm.inference.engine.backend import Direction, Stretch, strengths_of
from lucidlm.inference.engine.openvino_graph import Form, build_graph
from lucidlm.model.heads import LanguageModel


class OpenVINOBackend:
    """A model compiled for the CPU; see `Backend`. What its weights are later does not change it.

    Parameters
    ----------
    blocks: room for so many times 32 tokens.
    form: how weights are held; in int8 and int4 keys and values are in fp16, and products are computed in int8. (OpenVINO's
        8-bit keys depend on what stood in their block before, which a wrong draft would change.)
    directions: what is added to the states of sequences that ask for it.
    release_weights: let go of the model's own, which nothing else needs, before those of the graph are packed.
    """

    block_size = 32  # that of OpenVINO's attention
    has_own_threads = True

    def __init__(
        self,
        model: LanguageModel,
        blocks: int,
        form: Form = "int8",
        directions: Sequence[Direction] = (),
        *,
        release_weights: bool = False,
    ) -> None:
        self.blocks, self._directions, exact = blocks, directions, form == "none"
        self._threads = torch.get_num_threads()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self._threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "KV_CACHE_PRECISION": "f32" if exact else "f16",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0 if exact else 32,
        }
        graph = build_graph(model, form, directions, release_weights=release_weights)
        compiled = openvino.Core().compile_model(graph, "CPU", settings)
        self._request = compiled.create_infer_request()
        self.token_bytes = 0
        self._held: list[openvino.Tensor] = []
        for place in compiled.inputs:
            if place.any_name.startswith(("key_cache.", "value_cache.")):
                shape = [size.get_length() for size in list(place.partial_shape)[1:]]
                held = openvino.Tensor(place.element_type, Shape([blocks + 1, *shape]))
                self._request.set_tensor(place, held)
                self._held.append(held)
                self.token_bytes += held.byte_size // (blocks + 1) // self.block_size

    def read(self, stretches: Sequence[Stretch]) -> Tensor:
        """See `Backend.read`."""
        first: list[Stretch] = []
        later: list[Stretch] = []  # what needs keys and values of a piece in `first`
        order: list[tuple[list[Stretch], int]] = []  # of each wanted row, in which list and the how many-th there
        rows = {id(first): 0, id(later): 0}
        for stretch in stretches:
            pieces = _pieces(stretch, self.block_size)
            for place, piece in enumerate(pieces):
                call = later if place and len(pieces[0].tokens) > 1 else first
                call.append(piece)
                order += [(call, rows[id(call)] + row) for row in range(piece.wanted)]
                rows[id(call)] += piece.wanted
        if not later:
            return self._run(first)
        logits = torch.cat((self._run(first), self._run(later)))
        return logits[[row if call is first else rows[id(first)] + row for call, row in order]]

    def copy(self, blocks: Sequence[tuple[int, int]]) -> None:
        """See `Backend.copy`."""
        sources, targets = map(list, zip(*blocks, strict=True))
        for held in self._held:
            held.data[targets] = held.data[sources]

    def _run(self, stretches: Sequence[Stretch]) -> Tensor:
        if len(stretches) < self._threads and all(len(one.tokens) == 1 for one in stretches):
            # Fewer single tokens than threads are attended from by a third kernel, but not beside a prompt.
            stretches = [*stretches, Stretch([0, 0], 0, [self.blocks], wanted=0)]
        counts = np.array([len(one.tokens) for one in stretches])
        starts = np.array([one.start for one in stretches])
        ends = counts.cumsum()
        inputs = {
            "input_ids": np.concatenate([one.tokens for one in stretches]).astype(np.int64),
            "position_ids": np.concatenate(
                [np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
            ),
            "rows": np.concatenate(
                [np.arange(end - one.wanted, end) for end, one in zip(ends, stretches, strict=True)]
            ),
            "past_lens": starts.astype(np.int32),
            "subsequence_begins": np.concatenate([[0], ends]).astype(np.int32),
            "block_indices": np.concatenate([one.blocks for one in stretches]).astype(np.int32),
            "block_indices_begins": np.cumsum([0, *(len(one.blocks) for one in stretches)]).astype(np.int32),
            "max_context_len": np.array((starts + counts).max(), dtype=np.int32),
        }
        if self._directions:
            strengths = strengths_of(stretches, self._directions)  # (stretches, directions)
            inputs["strengths"] = strengths.repeat_interleave(torch.from_numpy(counts), 0).numpy()
        for name, value in inputs.items():
            self._request.set_tensor(name, openvino.Tensor(value))
        self._request.infer()
        return torch.from_numpy(self._request.get_output_tensor(0).data.copy())


def _pieces(stretch: Stretch, size: int) -> list[Stretch]:
    """Return a stretch as what is given to the attention: several tokens of the prompt, then single ones.

    One token is attended from by another kernel than several, which rounds otherwise, and in int8 the difference grows. So
    which of the two computes a token must not depend on what was guessed, read again or found in the cache: tokens that
    were written, or guessed, are pieces of their own, and so is a prompt's last one where it is the first of its block (the
    blocks before it may have been in the cache).
    """
    end = len(stretch.tokens) - stretch.written
    if stretch.wanted and end > 1 and (stretch.start + end) % size == 1:
        end -= 1
    borders = [0, *range(max(end, 1), len(stretch.tokens) + 1)]
    last_wanted = len(stretch.tokens) - stretch.wanted
    return [
        Stretch(
            stretch.tokens[first:last],
            stretch.start + first,
            stretch.blocks[: -(-(stretch.start + last) // size)],
            max(0, last - max(first, last_wanted)),
            steering=stretch.steering,
        )
        for first, last in pairwise(borders)
    ]
