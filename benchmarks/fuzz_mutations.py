"""Bytes altered at random, with what is known of the forms that models come in: JSON, and headers of JSON before data."""

from __future__ import annotations

import json
import random
from typing import Any

NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    127,
    255,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**53,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
VALUES: tuple[Any, ...] = (
    *NUMBERS,
    -(2**63),
    10**30,
    0.5,
    -0.0,
    1e-300,
    1e300,
    float("nan"),
    float("inf"),
    None,
    True,
    False,
    "",
    "0",
    "../../etc/passwd",
    "\ud800\x00",
    "x" * 10_000,
    [],
    [[]],
    {},
    [0] * 1000,
    {"type": "Sequence"},
)


def mutate(data: bytes, suffix: str, chance: random.Random) -> bytes:
    """Return `data` of a file whose name ends in `suffix`, altered once or a few times."""
    structured = chance.random() < 0.6
    if structured and suffix == ".json":
        return _json(data, chance)
    if structured and suffix == ".safetensors":
        size = int.from_bytes(data[:8], "little")
        header = _json(data[8 : 8 + size], chance)
        return len(header).to_bytes(8, "little") + header + data[8 + size :]
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        data = _bytes(data, chance)
    return data


def _bytes(data: bytes, chance: random.Random) -> bytes:
    if not data:
        return chance.randbytes(8)
    # Headers are at the beginning, and in archives at the end.
    reach = chance.choice((len(data), len(data), 64, 512, 4096))
    at = chance.randrange(min(reach, len(data)))
    if chance.random() < 0.15:
        at = len(data) - 1 - at
    end = min(len(data), at + chance.choice((1, 2, 4, 8, 16, 64, 512)))
    kind = chance.randrange(8)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + data[end:]
    if kind == 3:
        return data[:end] + data[at:end] * chance.choice((1, 1, 2, 100)) + data[end:]
    if kind == 4:
        start = chance.randrange(len(data))
        return data[:at] + data[start : start + end - at] + data[end:]
    if kind == 5:
        return data[:at] + chance.randbytes(end - at) + data[end:]
    width = chance.choice((1, 2, 4, 8))
    number = chance.choice((*NUMBERS, len(data), len(data) - at, chance.randrange(1 << 16)))
    written = (number % 256**width).to_bytes(width, chance.choice(("little", "little", "big")))
    if kind == 6:
        at -= at % width
    return data[:at] + written + data[at + width :]


def _json(data: bytes, chance: random.Random) -> bytes:
    try:
        value = json.loads(data)
    except ValueError:
        return _bytes(data, chance)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        _alter(value, chance)
    written = json.dumps(value)
    if chance.random() < 0.05:
        key = chance.choice(list(value)) if value else ""
        written = f"{{{json.dumps(key)}: {json.dumps(chance.choice(VALUES))}, {written[1:]}"
    if chance.random() < 0.03:
        deep = chance.choice((200, 100_000))
        written = written.replace(":", ':{"a":' * deep, 1) if chance.random() < 0.5 else f'{{"a":{"[" * deep}'
    return written.encode(errors="surrogatepass")


def _alter(value: Any, chance: random.Random) -> None:
    """Change something within `value`, at any depth."""
    while True:
        places = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not places:
            return
        place = chance.choice(places)
        inner = value[place]
        if not (isinstance(inner, dict | list) and inner and chance.random() < 0.85):
            break
        value = inner
    kind = chance.randrange(6)
    if kind == 0:
        del value[place]
    elif kind == 1 and isinstance(value, dict):
        value[chance.choice([*places, f"{place}x", "", "../x"])] = value.pop(place)
    elif kind == 2:
        value[place] = value[chance.choice(places)]
    elif kind == 3 and isinstance(inner, int | float) and not isinstance(inner, bool):
        value[place] = chance.choice((inner + 1, inner - 1, inner * 2, -inner, inner * 10**6, str(inner), float(inner)))
    else:
        value[place] = chance.choice(VALUES)
