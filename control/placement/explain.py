"""Why a host was or was not chosen, in words and numbers: of the best hosts, and of some that each constraint shuts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from control.addresses import text as address_text
from control.placement.changes import smallest_change
from control.placement.filters import FILTERS
from control.placement.look import NONE, eligible, failing, kind_of
from control.placement.model import Floats, Ints, Shape, View
from control.placement.weights import best_first
from control.placement.work import Work

BEST = 5  # hosts where it fits that are told of one by one
SHUT = 5  # of each constraint, hosts that it shuts; of the rest only how many
MAX_CHANGES = 20  # failing shapes of one batch for which a change is sought


@dataclass(frozen=True)
class Fitting:
    """Where a shape fits: hosts, how often there, scores and their parts; all in one order.

    more: hosts where it fits as well, all behind these; shut: those where it may be but has no room.
    """

    hosts: Ints
    room: Ints
    score: Floats
    parts: Mapping[str, Floats]
    more: int
    shut: Ints


def record(view: View, work: Work, shape: Shape, seen: Fitting) -> dict[str, Any]:
    """Return what one decision rests on: the best hosts with their scores, the others by what keeps the shape away."""
    best = best_first(view, seen.score, seen.hosts, BEST) if len(seen.hosts) else seen.hosts
    scores = np.round(np.stack([seen.score, *seen.parts.values()])[:, best], 4).T.tolist()
    rows = zip(seen.hosts[best].tolist(), seen.room[best].tolist(), scores, strict=True)
    entries = [
        {
            "host": view.names[h], "rank": rank, "fits": min(room, 2**31), "score": score,
            "parts": dict(zip(seen.parts, parts, strict=True)),
        }
        for rank, (h, room, (score, *parts)) in enumerate(rows)
    ]  # fmt: skip
    others = {"fits": len(seen.hosts) - len(best) + seen.more}
    for shut, more in (_never(view, work, shape), _shut_by(view, work, shape, seen.shut)):
        entries += shut
        others |= more
    others = {name: count for name, count in others.items() if count}
    return {"shape": describe(shape), "hosts": entries, **({"others": others} if others else {})}


Shut = tuple[list[dict[str, Any]], dict[str, int]]  # some hosts of each constraint with its reason; how many more


def _never(view: View, work: Work, shape: Shape) -> Shut:
    """Return what tests keep away.

    What they say of a kind of shapes does not change while a batch is placed, and is put into words once.
    """
    key = ("shut", kind_of(view, work, shape))
    if key not in view.kept:
        where = eligible(view, work, shape)
        hosts = np.flatnonzero(~where.mask)
        view.kept[key] = _told(view, work, shape, hosts, where.failing[hosts])
    found: Shut = view.kept[key]
    return found


def _shut_by(view: View, work: Work, shape: Shape, hosts: Ints) -> Shut:
    return _told(view, work, shape, hosts, failing(view, work, shape, hosts)) if len(hosts) else ([], {})


def _told(view: View, work: Work, shape: Shape, hosts: Ints, first: npt.NDArray[np.uint8]) -> Shut:
    """Return the nearest hosts of each constraint. first: of each of these hosts the first one that shuts it."""
    entries: list[dict[str, Any]] = []
    more: dict[str, int] = {}
    for index, count in enumerate(np.bincount(first, minlength=NONE)[:NONE].tolist()):
        if not count:
            continue
        constraint, those = FILTERS[index], hosts[first == index]
        left = constraint.left(view, work, shape) if constraint.left else None
        far = np.zeros(count) if left is None else -left[those].astype(np.float64)
        nearest = those[best_first(view, far, those, SHUT)]
        for h in nearest.tolist():
            reason = constraint.reason(view, work, shape, h)
            entries.append({"host": view.names[h], "constraint": constraint.name, **reason})
        more[constraint.name] = count - len(nearest)
    return entries, more


def failed_record(view: View, work: Work, shape: Shape, *, changes: bool) -> dict[str, Any]:
    """Return why a shape fits nowhere: what keeps it from each host, and the smallest change that would fit."""
    none, hosts = np.zeros(0, np.int64), np.flatnonzero(eligible(view, work, shape).mask)
    found = record(view, work, shape, Fitting(none, none, np.zeros(0), {}, 0, hosts))
    found["summary"] = summary(found)
    if changes:
        found["change"] = smallest_change(view, work, shape)
    return found


def summary(found: Mapping[str, Any]) -> str:
    """Return one line out of a record: "memory on h1, h2 (needs 8192 MiB …); kind on h3"."""
    by_constraint: dict[str, list[Mapping[str, Any]]] = {}
    for entry in found["hosts"]:
        if "constraint" in entry:
            by_constraint.setdefault(entry["constraint"], []).append(entry)
    parts: list[str] = []
    for constraint, entries in by_constraint.items():
        names = [entry["host"] for entry in entries]
        count = len(names) + (found.get("others") or {}).get(constraint, 0)
        more = f" and {count - 3} more" if count > 3 else ""
        best = max(entries, key=lambda entry: entry.get("free") or 0)
        where = f"; best is {best['host']}" if len(names) > 1 and "free" in best else ""
        parts.append(f"{constraint} on {', '.join(names[:3])}{more} ({best['reason']}{where})")
    return "; ".join(parts) or "there is no host"


_FIELDS = tuple(field.name for field in fields(Shape))
_FORMS: dict[str, Callable[[Any], Any]] = {  # of what JSON has no form for; the others stay as they are
    "labels": dict, "own_labels": dict, "nics": dict, "pci": dict, "avoid": sorted, "capabilities": sorted,
    "fixed": lambda fixed: [{"network": name, "address": address_text(address)} for name, address in fixed],
    "rules": lambda rules: [str(rule) for rule in rules],
}  # fmt: skip


def describe(shape: Shape) -> dict[str, Any]:
    """Return a shape in JSON form; what is not asked for is left out."""
    values = {name: value for name in _FIELDS if (value := getattr(shape, name))}
    if shape.cpu_m:
        values["cpu"] = values.pop("cpu_m") / 1000
    return {name: _FORMS[name](value) if name in _FORMS else value for name, value in values.items()}
