"""Triton kernels for one new token a sequence, over the cache in blocks: eight launches a layer.

A step with one token is bound by how many kernels run one after the other and how soon each has its weights. So a kernel
does what its inputs allow, and where the GPU lets it begin early (`EARLY`: programmatic dependent launch, from Hopper on)
it loads weights while the one before still runs, and only then waits for that. Nothing else is touched before the wait;
where the loads of a loop are issued ahead of it (`STAGED`: more than one stage), the wait stands before the loop.

Weights are (out, in), as `torch.nn.Linear` has them. Products are of tiles of `TILE` rows with `COLUMNS` columns, `STEP` of
their depth at a time; sums are in fp32.
"""

# pyright: reportMissingImports=false, reportArgumentType=false, reportOptionalCall=false
from __future__ import annotations

import triton
import triton.language as tl

try:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

    BEGINS_EARLY = True
except ImportError:  # older versions of Triton have none
    gdc_launch_dependents, gdc_wait = None, None
    BEGINS_EARLY = False


@triton.jit
def _add_product(total, states, factors, TILE: tl.constexpr):
    """Return `total` (TILE, n) fp32 plus the product of `states` (TILE, k) with `factors` (k, n)."""
    if TILE == 1:  # matrix units take 16 rows
        total += tl.sum(tl.trans(states).to(tl.float32) * factors.to(tl.float32), 0)[None, :]
    else:
        total = tl.dot(states, factors, total, input_precision="ieee")
    return total


@triton.jit
def _two_products(
    states, left, right, depth, row, live, column, there,
    TILE: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, EARLY: tl.constexpr, STAGED: tl.constexpr,
):  # fmt: skip
    """Return the products of `states` (rows, depth) with the rows `column` of two weights (…, depth), fp32."""
    one = tl.zeros((TILE, COLUMNS), tl.float32)
    other = tl.zeros((TILE, COLUMNS), tl.float32)
    if EARLY and STAGED:
        gdc_wait()
    for start in range(0, depth, STEP):
        k = start + tl.arange(0, STEP)
        held = k < depth
        at = column[None, :] * depth + k[:, None]
        left_part = tl.load(left + at, mask=held[:, None] & there[None, :], other=0.0)
        right_part = tl.load(right + at, mask=held[:, None] & there[None, :], other=0.0)
        if EARLY and not STAGED:
            gdc_wait()
        part = tl.load(states + row[:, None] * depth + k[None, :], mask=live[:, None] & held[None, :], other=0.0)
        one = _add_product(one, part, left_part, TILE)
        other = _add_product(other, part, right_part, TILE)
    return one, other


@triton.jit
def normalise(x, norm, states, width, eps, WIDE: tl.constexpr, EARLY: tl.constexpr):
    """Write `x` (rows, width), divided by its root mean square and scaled, to `states`; a program a row."""
    k = tl.arange(0, WIDE)
    inside = k < width
    scale = tl.load(norm + k, mask=inside, other=0.0).to(tl.float32)
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    at = tl.program_id(0) * width + k
    part = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    part *= tl.rsqrt(tl.sum(part * part, 0) / width + eps) * scale
    tl.store(states + at, part.to(states.dtype.element_ty), mask=inside)


@triton.jit
def project_heads(
    states, q_weight, k_weight, v_weight, q_bias, k_bias, v_bias, q_norm, k_norm, frequencies, positions, slots,
    queries, keys, values, rows, width, slot_count, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, HALF: tl.constexpr,
    BIASED: tl.constexpr, QK_NORM: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr, EARLY: tl.constexpr,
    STAGED: tl.constexpr,
):  # fmt: skip
    """Write queries (rows, H, d), and keys and values to their slots of the cache (G, slots, d); a program a head."""
    if EARLY:
        gdc_launch_dependents()
    head = tl.program_id(0)
    row = tl.program_id(1) * TILE + tl.arange(0, TILE)
    live = row < rows
    half = tl.arange(0, HALF)
    inside = half < HEAD_DIM // 2
    if head < HEADS:
        group = head
        weight, bias, head_norm, target = q_weight, q_bias, q_norm, queries
    elif head < HEADS + KV_HEADS:
        group = head - HEADS
        weight, bias, head_norm, target = k_weight, k_bias, k_norm, keys
    else:
        group = head - HEADS - KV_HEADS
        weight, bias, head_norm, target = v_weight, v_bias, k_norm, values
    weight += group * HEAD_DIM * width
    left, right = _two_products(
        states,
        weight,
        weight + (HEAD_DIM // 2) * width,
        width,
        row,
        live,
        half,
        inside,
        TILE,
        HALF,
        STEP,
        EARLY,
        STAGED,
    )
    if BIASED:
        bias += group * HEAD_DIM + half
        left += tl.load(bias, mask=inside, other=0.0).to(tl.float32)[None, :]
        right += tl.load(bias + HEAD_DIM // 2, mask=inside, other=0.0).to(tl.float32)[None, :]
    if head < HEADS + KV_HEADS:
        if QK_NORM:
            scale = tl.rsqrt((tl.sum(left * left, 1) + tl.sum(right * right, 1)) / HEAD_DIM + eps)[:, None]
            left *= scale * tl.load(head_norm + half, mask=inside, other=0.0).to(tl.float32)[None, :]
            right *= scale * tl.load(head_norm + HEAD_DIM // 2 + half, mask=inside, other=0.0).to(tl.float32)[None, :]
        position = tl.load(positions + row, mask=live, other=0).to(tl.float32)
        angle = position[:, None] * tl.load(frequencies + half, mask=inside, other=0.0)[None, :]
        cos, sin = tl.cos(angle), tl.sin(angle)
        left, right = left * cos - right * sin, right * cos + left * sin
    if head < HEADS:
        at = target + (row[:, None].to(tl.int64) * HEADS + group) * HEAD_DIM + half[None, :]
        kept = live[:, None] & inside[None, :]
    else:
        slot = tl.load(slots + row, mask=live, other=-1).to(tl.int64)  # padding has none
        at = target + (group * slot_count + slot[:, None]) * HEAD_DIM + half[None, :]
        kept = (slot >= 0)[:, None] & inside[None, :]
    tl.store(at, left.to(states.dtype.element_ty), mask=kept)
    tl.store(at + HEAD_DIM // 2, right.to(states.dtype.element_ty), mask=kept)


@triton.jit
def attend(
    queries, keys, values, table, positions, parts, tops, totals, slot_count, table_width, scale,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, WIDE: tl.constexpr, GROUP: tl.constexpr,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr, SPLITS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Attend to one share of a sequence's columns (Dao et al. 2023, "Flash-Decoding"); a program a sequence, head of keys
    and share.

    Writes (rows, H, SPLITS): sums of values (…, d) weighted by exp(score - top), the highest score, the sum of weights.
    """
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    row, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(positions + row) + 1
    share = tl.cdiv(tl.cdiv(length, SPLITS), COLUMNS) * COLUMNS
    first = split * share
    end = tl.minimum(first + share, length)
    member, d = tl.arange(0, GROUP), tl.arange(0, WIDE)
    inside = d < HEAD_DIM
    used = (member < HEADS // KV_HEADS)[:, None] & inside[None, :]
    head = row * HEADS + kv_head * (HEADS // KV_HEADS) + member
    q = tl.load(queries + head[:, None] * HEAD_DIM + d[None, :], mask=used, other=0.0)
    top = tl.full((GROUP,), -float("inf"), tl.float32)
    total = tl.zeros((GROUP,), tl.float32)
    mixed = tl.zeros((GROUP, WIDE), tl.float32)
    for start in range(first, end, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        seen = column < end
        block = tl.load(table + row * table_width + column // BLOCK, mask=seen, other=0).to(tl.int64)
        at = (kv_head * slot_count + block * BLOCK + column % BLOCK) * HEAD_DIM
        k = tl.load(keys + at[None, :] + d[:, None], mask=seen[None, :] & inside[:, None], other=0.0)
        v = tl.load(values + at[:, None] + d[None, :], mask=seen[:, None] & inside[None, :], other=0.0)
        scores = tl.where(seen[None, :], tl.dot(q, k, input_precision="ieee") * scale, -float("inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        shrunk = tl.exp(top - higher)
        total = total * shrunk + tl.sum(weights, 1)
        mixed = tl.dot(weights.to(v.dtype), v, mixed * shrunk[:, None], input_precision="ieee")
        top = higher
    at = head * SPLITS + split
    tl.store(parts + at[:, None] * HEAD_DIM + d[None, :], mixed, mask=used)
    tl.store(tops + at, top, mask=member < HEADS // KV_HEADS)
    tl.store(totals + at, total, mask=member < HEADS // KV_HEADS)


@triton.jit
def combine(
    parts, tops, totals, mixed,
    HEAD_DIM: tl.constexpr, WIDE: tl.constexpr, SPLITS: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Put the shares of `attend` together, into `mixed` (rows, H, d); a program a sequence and head."""
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    head = tl.program_id(0)
    d, split = tl.arange(0, WIDE), tl.arange(0, SPLITS)
    inside = d < HEAD_DIM
    at = head * SPLITS + split
    top = tl.load(tops + at)
    share = tl.exp(top - tl.max(top, 0))
    part = tl.load(parts + at[:, None] * HEAD_DIM + d[None, :], mask=inside[None, :], other=0.0)
    mean = tl.sum(part * share[:, None], 0) / tl.sum(share * tl.load(totals + at), 0)
    tl.store(mixed + head * HEAD_DIM + d, mean.to(mixed.dtype.element_ty), mask=inside)


@triton.jit
def gate(
    states, gate_weight, up_weight, hidden, rows, width, ff_dim,
    TILE: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, EARLY: tl.constexpr, STAGED: tl.constexpr,
):  # fmt: skip
    """Write silu(gate) * up of `states` (rows, width) to `hidden` (rows, ff_dim)."""
    if EARLY:
        gdc_launch_dependents()
    row = tl.program_id(1) * TILE + tl.arange(0, TILE)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    live, there = row < rows, column < ff_dim
    opened, up = _two_products(
        states, gate_weight, up_weight, width, row, live, column, there, TILE, COLUMNS, STEP, EARLY, STAGED
    )
    at = hidden + row[:, None] * ff_dim + column[None, :]
    tl.store(at, (opened * tl.sigmoid(opened) * up).to(hidden.dtype.element_ty), mask=live[:, None] & there[None, :])


@triton.jit
def multiply(
    states, weight, out, rows, depth, width,
    ADDED: tl.constexpr, TILE: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, EARLY: tl.constexpr,
    STAGED: tl.constexpr,
):  # fmt: skip
    """Write the product of `states` (rows, depth) with a weight to `out` (rows, width), or add it to that."""
    if EARLY:
        gdc_launch_dependents()
    row = tl.program_id(1) * TILE + tl.arange(0, TILE)
    column = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    live, there = row < rows, column < width
    total = tl.zeros((TILE, COLUMNS), tl.float32)
    if EARLY and STAGED:
        gdc_wait()
    for start in range(0, depth, STEP):
        k = start + tl.arange(0, STEP)
        held = k < depth
        at = column[None, :] * depth + k[:, None]
        factors = tl.load(weight + at, mask=held[:, None] & there[None, :], other=0.0)
        if EARLY and not STAGED:
            gdc_wait()
        part = tl.load(states + row[:, None] * depth + k[None, :], mask=live[:, None] & held[None, :], other=0.0)
        total = _add_product(total, part, factors, TILE)
    target = out + row[:, None].to(tl.int64) * width + column[None, :]
    kept = live[:, None] & there[None, :]
    if ADDED:
        total += tl.load(target, mask=kept, other=0.0).to(tl.float32)
    tl.store(target, total.to(out.dtype.element_ty), mask=kept)
