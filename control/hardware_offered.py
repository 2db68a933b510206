"""What a host has for single instances, by what it is made of and what its spec gives away. Pure.

A host's `hardware` holds it: {"cells": [{"cpus": [0, …], "siblings": [[0, 8], …], "memory_mib", "pages": {"2048":
MiB}}], "pinned": [2, 3, …], "pages": {"2048": MiB}, "pci": [{"address", "id", "class", "iommu_group"}], "refused":
[{"address", "id", "class", "why"}]}, the last ones being devices that were to be offered and cannot be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from core.units import numbers

Grant = dict[str, Any]
Device = Mapping[str, Any]


def offered(
    facts: Mapping[str, Any], spec: Mapping[str, Any], grants: Sequence[Grant] = ()
) -> dict[str, Any] | None:
    """Return what a host has for single instances, by its facts and what its spec gives away; None: nothing. Pure.

    grants: what its instances have of it. Huge pages that are in use beyond that are somebody else's, and not offered.
    """
    cells = facts.get("cells") or []
    if not cells:  # a machine that tells of none is one cell
        cells = [{"cpus": list(range(int(facts.get("cpus") or 0))), "memory_mib": int(facts.get("memory_mib") or 0)}]
    known = {cpu for cell in cells for cpu in cell["cpus"]}
    pinned = sorted(set(numbers(str(spec.get("pinned_cpus") or ""))) & known)
    pages = _pages(facts, grants)
    shown = [
        {
            **{key: value for key, value in cell.items() if not key.startswith("hugepages")},
            **({"pages": here} if (here := _pages(cell, [g for g in grants if g.get("cell") in (n, None)])) else {}),
        }
        for n, cell in enumerate(cells)
    ]  # fmt: skip
    pci, refused = _devices(facts.get("pci") or (), tuple(spec.get("pci") or ()))
    found = {"cells": shown if len(cells) > 1 or pinned else [], "pinned": pinned, "pages": pages, "pci": pci}
    return {**found, **({"refused": refused} if refused else {})} if any(found.values()) or refused else None


def _pages(facts: Mapping[str, Any], grants: Sequence[Grant]) -> dict[str, int]:
    """Return the MiB in huge pages of a machine or a cell, by KiB of a page, without those that others use."""
    free = facts.get("hugepages_free") or {}
    found = {}
    for kib, mib in (facts.get("hugepages") or {}).items():
        ours = sum(int(one["memory_mib"]) for one in grants if one.get("page_kib") == int(kib))
        found[str(kib)] = mib - max(0, mib - free.get(kib, mib) - ours)
    return {kib: mib for kib, mib in found.items() if mib}


def _devices(found: Sequence[Device], patterns: Sequence[str]) -> tuple[list[Device], list[Device]]:
    """Return devices that may be passed on, and those that were to be and cannot, each with why."""
    wanted = [one for one in found if any(fnmatchcase(one["id"], pattern) for pattern in patterns)]
    given = {one["address"] for one in wanted}
    offers, refused = list[Device](), list[Device]()
    for one in wanted:
        others = [d for d in found if d["address"] not in given and group_of(d) == group_of(one)]
        told = {key: one[key] for key in ("address", "id", "class")}
        if group_of(one) is None:
            refused.append({**told, "why": "there is no IOMMU: switch it on in the firmware and the kernel"})
        elif others:
            names = ", ".join(f"{d['address']} ({d['id']})" for d in others)
            why = f"{names} of its IOMMU group {group_of(one)} would have to go with it: offer all of them, or none"
            refused.append({**told, "why": why})
        else:
            offers.append({**told, "iommu_group": group_of(one)})
    return offers, refused


def group_of(device: Device) -> int | None:
    return device.get("iommu_group")
