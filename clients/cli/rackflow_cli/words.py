"""Values as people read them: ages, sizes, durations, labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

NOTHING = "-"
_SPAN = re.compile(r"([0-9]+)([smhdw]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def at(text: str | None) -> datetime | None:
    """Return the aware time of an RFC 3339 text, None for None."""
    return datetime.fromisoformat(text) if text else None


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Return the seconds from start to end (None: now), None when it has not begun."""
    begun = at(start)
    return None if begun is None else max(((at(end) or datetime.now(UTC)) - begun).total_seconds(), 0.0)


def duration(seconds: float | None) -> str:
    """Return e.g. "0.4s", "12s", "3m05s", "2h10m", "5d3h"."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for unit, below, size, part in (("m", 3600, 60, "s"), ("h", 86400, 3600, "m"), ("d", None, 86400, "h")):
        if whole < 60:
            return f"{whole}s"
        if below is None or whole < below:
            smaller = {"s": 1, "m": 60, "h": 3600}[part]
            return f"{whole // size}{unit}{whole % size // smaller:02d}{part}"
    raise AssertionError("unreachable")


def seconds_of(text: str) -> int:
    """Return the seconds of e.g. "90s", "15m", "2h", "1d", "1w", "1h30m", "45". Raise ValueError."""
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no span of time")
    return sum(int(number) * _SECONDS[unit] for number, unit in parts)


def moment_of(text: str) -> str:
    """Return a time in RFC 3339: as given, local where it has no zone; "+2h" is counted from now. Raise ValueError."""
    if text.startswith("+"):
        found = datetime.now(UTC) + timedelta(seconds=seconds_of(text[1:]))
    else:
        try:
            found = datetime.fromisoformat(text).astimezone(UTC)
        except ValueError:
            raise ValueError(f"{text!r} is no time") from None
    return found.isoformat(timespec="seconds").replace("+00:00", "Z")


def until(text: str | None) -> str:
    """Return how long it is until then, coarsely: "in 5m"; "now" when it is over."""
    if text is None:
        return NOTHING
    left = (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds()
    return f"in {duration(max(left, 10))}" if left > 0 else "now"


def age(text: str | None) -> str:
    """Return how long ago that was, coarsely: "45s", "12m", "3h", "5d"."""
    seconds = seconds_between(text, None)
    if seconds is None:
        return NOTHING
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def mib(value: float | None) -> str:
    """Return a size in MiB for people, e.g. "512 MiB", "1.5 GiB"."""
    return NOTHING if value is None else size_bytes(value * 2**20)


def size_bytes(value: float | None) -> str:
    """Return a size in bytes for people."""
    if value is None:
        return NOTHING
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if amount == int(amount) else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def number(value: Any) -> str:
    """Return a number without needless zeros, anything else as `text` does."""
    return text(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else text(value)


def text(value: Any) -> str:
    """Return anything as one short cell."""
    if value is None or value in ("", [], {}):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ",".join(f"{k}={text(v)}" for k, v in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(text(v) for v in value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def counted(count: int, noun: str) -> str:
    """Return e.g. "1 instance", "3 instances"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
