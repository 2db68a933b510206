"""What comes and goes, from CSV: name, arrival_s, lifetime_s, cpu, memory_mib, and what else is known of each."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from control.placement.model import Shape, millis
from core.errors import Invalid
from core.states import InstanceKind


@dataclass(frozen=True, slots=True)
class Arrival:
    """One instance. Times in seconds from any moment on; lifetime_s infinite: it never leaves."""

    name: str
    arrival_s: float
    lifetime_s: float
    cpu_m: int
    memory_mib: int
    owner: str = ""
    template: str = ""
    kind: str = "vm"
    labels: tuple[tuple[str, str], ...] = ()
    disk_mib: int = 0
    image: str = ""
    image_mib: int = 0  # what a copy of it takes on a host
    network: str = ""  # of which it has one address

    @property
    def end_s(self) -> float:
        """Return when it leaves."""
        return self.arrival_s + self.lifetime_s

    def shape(self, lifetime_s: int = 0) -> Shape:
        """Return what placement is asked for. lifetime_s: that is expected to be left."""
        return Shape(
            self.kind, self.cpu_m, self.memory_mib, self.disk_mib, self.image, self.image_mib, lifetime_s=lifetime_s,
            nics=((self.network, 1),) if self.network else (),
        )  # fmt: skip


def read(lines: Iterable[str], file: str) -> list[Arrival]:
    """Return the arrivals of a CSV file with a header, in order of time. Raise Invalid, telling wrong lines."""
    rows = csv.reader(lines)
    header = [name.strip() for name in next(rows, [])]
    _check_header(header, file)
    found: list[Arrival] = []
    wrong: list[str] = []
    for row in rows:
        if not row:
            continue
        try:
            found.append(_arrival(header, row))
        except ValueError as error:
            wrong.append(f"line {rows.line_num}: {error}")
    if wrong:
        more = f"; and {len(wrong) - _TOLD} lines more" if len(wrong) > _TOLD else ""
        said = f"{file}: {'; '.join(wrong[:_TOLD])}{more}"
        raise Invalid(said, f"file/{file}", {"lines": len(wrong)}, "correct these lines")
    if not found:
        fix = "write one instance on each line below the header"
        raise Invalid(f"{file}: there are no arrivals in it", f"file/{file}", {}, fix)
    return sorted(found, key=lambda one: one.arrival_s)


_TOLD = 3  # wrong lines


def _check_header(header: Sequence[str], file: str) -> None:
    missing = [name for name in _REQUIRED if name not in header]
    unknown = [name for name in header if name not in _COLUMNS]
    if missing or unknown or len(set(header)) < len(header):
        said = [f"has no column {name}" for name in missing] + [f"has an unknown column {name!r}" for name in unknown]
        raise Invalid(
            f"{file}: line 1: the header {' and '.join(said) or 'names a column twice'}", f"file/{file}",
            {"header": list(header)}, f"the columns are {','.join(_REQUIRED)} and, where wanted, {','.join(_OPTIONAL)}",
        )  # fmt: skip


def _arrival(header: Sequence[str], row: Sequence[str]) -> Arrival:
    if len(row) != len(header):
        raise ValueError(f"{len(row)} fields instead of {len(header)}")
    values: dict[str, Any] = {}
    for name, text in zip(header, row, strict=True):
        field, form = _COLUMNS[name]
        try:
            values[field] = form(text.strip())
        except ValueError as error:
            raise ValueError(f"{name} {text!r} {error}") from None
    return Arrival(**values)


def _number(least: float) -> Callable[[str], float]:
    def read_number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError("is no number") from None
        if not least <= value < math.inf:
            raise ValueError(f"is less than {least:g}" if value < least else "is not finite")
        return value

    return read_number


def _lifetime(text: str) -> float:
    return _number(0)(text) if text else math.inf


def _cpu(text: str) -> int:
    return millis(_number(0.001)(text))


def _memory(text: str) -> int:
    return math.ceil(_number(1)(text))


def _gib(text: str) -> int:
    return math.ceil(1024 * _number(0)(text)) if text else 0


def _name(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


def _kind(text: str) -> str:
    try:
        return str(InstanceKind(text)) if text else str(InstanceKind.VM)
    except ValueError:
        raise ValueError(f"is none of {', '.join(InstanceKind)}") from None


def _labels(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [part.partition("=") for part in text.split() if part]
    if any(not key or not equals for key, equals, _ in pairs):
        raise ValueError("is not like 'app=web tier=front'")
    return tuple(sorted((key, value) for key, _, value in pairs))


# Column -> field of Arrival, and how it is read.
_COLUMNS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "name": ("name", _name), "arrival_s": ("arrival_s", _number(-math.inf)), "lifetime_s": ("lifetime_s", _lifetime),
    "cpu": ("cpu_m", _cpu), "memory_mib": ("memory_mib", _memory), "owner": ("owner", str),
    "template": ("template", str), "kind": ("kind", _kind), "labels": ("labels", _labels),
    "disk_gib": ("disk_mib", _gib), "image": ("image", str), "image_gib": ("image_mib", _gib),
    "network": ("network", str),
}  # fmt: skip
_REQUIRED = ("name", "arrival_s", "lifetime_s", "cpu", "memory_mib")

_OPTIONAL = tuple(name for name in _COLUMNS if name not in _REQUIRED)
