"""Sizes as people write them ("512MiB", "10GB", 2048) to MiB and bytes, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence

from core.errors import Invalid

_FACTORS = {
    "": 1, "B": 1,
    "K": 2**10, "KIB": 2**10, "KB": 10**3,
    "M": 2**20, "MIB": 2**20, "MB": 10**6,
    "G": 2**30, "GIB": 2**30, "GB": 10**9,
    "T": 2**40, "TIB": 2**40, "TB": 10**12,
}  # fmt: skip
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*$")


def parse_bytes(text: str | int | float, default_unit: str = "B") -> int:
    """Return bytes for "512MiB", "1.5G", 10; a bare number counts in default_unit. Raise Invalid."""
    if isinstance(text, bool):
        raise Invalid(f"{text!r} is not a size", fix="write for example 512MiB or 10GiB")
    match = _SIZE.match(str(text))
    factor = _FACTORS.get((match.group(2) or default_unit).upper()) if match else None
    if match is None or factor is None:
        raise Invalid(f"{text!r} is not a size", fix="write for example 512MiB or 10GiB")
    return int(float(match.group(1)) * factor)


def parse_mib(text: str | int | float) -> int:
    """Return whole MiB, rounded up; a bare number is MiB. Raise Invalid."""
    return -(-parse_bytes(text, default_unit="MiB") // 2**20)


def format_bytes(size_bytes: float) -> str:
    """Return a short human form, e.g. "1.5 GiB"."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_mib(size_mib: float) -> str:
    """Return a short human form of a size in MiB."""
    return format_bytes(size_mib * 2**20)


def numbers(text: str) -> list[int]:
    """Return the numbers of a list such as "0,2-3"."""
    spans = [part.partition("-") for part in text.split(",") if part.strip()]
    return [n for first, _, last in spans for n in range(int(first), int(last or first) + 1)]


def spans(numbers: Sequence[int]) -> str:
    """Return numbers as a list such as "0-3,8"."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in found)
