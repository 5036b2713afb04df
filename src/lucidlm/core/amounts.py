"""How counts, shares and sizes are written for people."""

from __future__ import annotations


def count(value: float) -> str:
    """Write a count in three or four digits: 950, 12,340, 13.9 M, 1.2 G."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:,.3g} {unit}"
    return f"{value:,.0f}"


def percent(share: float, digits: int = 1) -> str:
    """Write a share of one as a percentage."""
    return f"{100 * share:.{digits}f} %"


def size(byte_count: float) -> str:
    """Write a number of bytes: 312 B, 4.1 kB, 33.2 MB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if byte_count >= unit:
            return f"{byte_count / unit:.1f} {name}"
    return f"{byte_count:.0f} B"
