"""What differs between two inspections of a machine: pure functions over inventories as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LESS = "less"  # of something that does not shrink by itself: a dead DIMM, a disk that is gone

# What there are several of, and what tells one from another (the first that it has).
PARTS = {"disks": ("serial", "wwn", "name"), "nics": ("mac", "name"), "pci": ("address",), "numa": ("number",)}
COUNTS = ("memory_mib", "cpu.count", "cpu.cores", "cpu.sockets")
TEXTS = ("serial", "product", "manufacturer", "cpu.model", "firmware.version", "bmc_version")
PASSING = {"nics": ("carrier", "speed_mbps", "address", "neighbour")}  # of a cable, not of the machine: no loss

Change = dict[str, Any]  # what, kind (more, less, added, changed), before, after


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return what differs, in a fixed order; what one of the two does not tell is no difference."""
    found = [_counted(one, at(before, one), at(after, one)) for one in COUNTS]
    found += [_said(one, at(before, one), at(after, one)) for one in TEXTS]
    return [one for one in found if one is not None] + [
        change for part in PARTS for change in _parts(part, before.get(part) or [], after.get(part) or [])
    ]


def losses(found: list[Change]) -> list[Change]:
    """Return those changes by which the machine has less than before."""
    return [one for one in found if one["kind"] == LESS]


def at(inventory: Mapping[str, Any], path: str) -> Any:
    """Return what stands at a dotted path, None where nothing does."""
    value: Any = inventory
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _counted(what: str, before: Any, after: Any) -> Change | None:
    if not before or after is None or before == after:
        return None
    return _change(what, LESS if after < before else "more", before, after)


def _said(what: str, before: Any, after: Any) -> Change | None:
    return _change(what, "changed", before, after) if before and after and before != after else None


def _parts(part: str, before: list[Any], after: list[Any]) -> list[Change]:
    old, new = _by_key(part, before), _by_key(part, after)
    found = [_change(f"{part}/{key}", LESS, old[key], None) for key in old if key not in new]
    found += [_change(f"{part}/{key}", "added", None, new[key]) for key in new if key not in old]
    for key in old.keys() & new.keys():
        fields = [f for f in old[key] if f not in PASSING.get(part, ()) and old[key][f] != new[key].get(f)]
        found += [_change(f"{part}/{key}.{f}", "changed", old[key][f], new[key].get(f)) for f in fields]
    return sorted(found, key=lambda one: str(one["what"]))


def _by_key(part: str, items: list[Any]) -> dict[str, Any]:
    return {next((str(one[k]) for k in PARTS[part] if one.get(k) not in (None, "")), ""): one for one in items}


def _change(what: str, kind: str, before: Any, after: Any) -> Change:
    return {"what": what, "kind": kind, "before": before, "after": after}
