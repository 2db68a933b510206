"""Why a host was or was not chosen, in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from control.addresses import text as address_text
from control.placement.changes import smallest_change
from control.placement.filters import FILTERS
from control.placement.look import Look, look
from control.placement.model import MANY, Shape, View, Work

DETAILED = 256  # hosts told of one by one in a record; of the rest only names, by constraint
MAX_CHANGES = 20  # failing shapes of one batch for which a change is sought


def record(view: View, work: Work, shape: Shape, seen: Look) -> dict[str, Any]:
    """Return what one decision rests on: for every host its room and score, or its first failing constraint."""
    order = np.lexsort((np.arange(len(view)), seen.score))
    rank = {int(h): n for n, h in enumerate(int(h) for h in order if seen.room[h] > 0)}
    told = sorted(range(len(view)), key=lambda h: (rank.get(h, MANY), h))[:DETAILED]
    entries = [_host(view, work, shape, seen, h, rank.get(h)) for h in told]
    rest: dict[str, list[str]] = {}
    for h in set(range(len(view))) - set(told):
        failing = seen.first_failing(h)
        rest.setdefault("score" if failing is None else FILTERS[failing].name, []).append(view.names[h])
    return {"shape": describe(shape), "hosts": entries, **({"others": rest} if rest else {})}


def _host(view: View, work: Work, shape: Shape, seen: Look, h: int, rank: int | None) -> dict[str, Any]:
    failing = seen.first_failing(h)
    if failing is not None:
        constraint = FILTERS[failing]
        return {"host": view.names[h], "constraint": constraint.name, **constraint.reason(view, work, shape, h)}
    return {
        "host": view.names[h], "rank": rank, "fits": min(int(seen.room[h]), 2**31),
        "score": round(float(seen.score[h]), 4),
        "parts": {name: round(float(part[h]), 4) for name, part in seen.parts.items()},
    }  # fmt: skip


def failed_record(view: View, work: Work, shape: Shape, *, changes: bool) -> dict[str, Any]:
    """Return why a shape fits nowhere: each host's first failing constraint, and the smallest change that would fit."""
    seen = look(view, work, shape)
    found = record(view, work, shape, seen)
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
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        best = max(entries, key=lambda entry: entry.get("free") or 0)
        where = f"; best is {best['host']}" if len(names) > 1 and "free" in best else ""
        parts.append(f"{constraint} on {', '.join(names[:3])}{more} ({best['reason']}{where})")
    return "; ".join(parts) or "there is no host"


def describe(shape: Shape) -> dict[str, Any]:
    """Return a shape in JSON form; what is not asked for is left out."""
    values = asdict(shape)
    values["cpu"] = values.pop("cpu_m") / 1000
    values["labels"], values["nics"] = dict(shape.labels), dict(shape.nics)
    values["fixed"] = [{"network": name, "address": address_text(address)} for name, address in shape.fixed]
    values["avoid"] = sorted(shape.avoid)
    return {name: value for name, value in values.items() if value not in (None, "", [], {}, 0)}
