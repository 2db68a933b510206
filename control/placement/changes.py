"""The smallest change of a request, or of the cloud, with which a request would fit.

Constraints can be given up (a table says which, and at what cost beside the others), sizes can be made smaller. The
fewest changes win, of those the cheapest; every answer was verified by solving again with the changes made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from control.addresses import text as address_text
from control.placement.filters import FILTERS, stores_of
from control.placement.look import fits, look
from control.placement.model import Shape, View, Work, per_host
from core.states import HostState

_SIZES = ("cpu", "memory", "measured-memory", "disk")  # filters that a smaller size can pass
_LEAST_CPU_M, _LEAST_MEMORY_MIB = 100, 16  # smaller ones would be of no use


@dataclass(frozen=True)
class Change:
    """Something that would have to be otherwise. to None: not asked for at all."""

    field: str
    before: Any
    to: Any
    words: str
    cost: float


@dataclass(frozen=True)
class Relaxation:
    """A constraint that could be given up. tell: what that means for host h, None = nothing there."""

    filters: tuple[str, ...]  # that it concerns
    cost: float  # beside 1 for a size that is made smaller by all of it
    relax: Callable[[View, Shape], tuple[View, Shape]]
    tell: Callable[[View, Shape, int], tuple[str, Any, Any, str] | None]


def _without(words: str, name: str, value: Callable[[Shape], Any]) -> Callable[..., Any]:
    """Return a `tell` for a requirement that is dropped."""

    def tell(view: View, shape: Shape, h: int) -> tuple[str, Any, Any, str] | None:
        before = value(shape)
        return (name, before, None, f"without requiring {words} {before}, it") if before else None

    return tell


def _all_ready(view: View, shape: Shape) -> tuple[View, Shape]:
    return replace(view, states=tuple(str(HostState.READY) for _ in view.states)), shape


def _tell_ready(view: View, shape: Shape, h: int) -> tuple[str, Any, Any, str] | None:
    name, state = view.names[h], view.states[h]
    if state == HostState.READY:
        return None
    return f"host {name}", state, str(HostState.READY), f"with host {name} ready instead of {state}, it"


def _tell_avoid(view: View, shape: Shape, h: int) -> tuple[str, Any, Any, str] | None:
    return "avoid", sorted(shape.avoid), None, f"with what failed on {view.names[h]} put right, it"


def _tell_networks(view: View, shape: Shape, h: int) -> tuple[str, Any, Any, str] | None:
    names = sorted({name for name, _ in (*shape.nics, *shape.fixed)})
    which = ", ".join(names)
    return ("nics", names, None, f"with room in network {which} on {view.names[h]}, it") if names else None


def _any_address(view: View, shape: Shape) -> tuple[View, Shape]:
    counts = dict(shape.nics)
    for name, _ in shape.fixed:
        counts[name] = counts.get(name, 0) + 1
    return view, replace(shape, fixed=(), nics=tuple(sorted(counts.items())))


def _tell_address(view: View, shape: Shape, h: int) -> tuple[str, Any, Any, str] | None:
    wanted = ", ".join(address_text(address) for _, address in shape.fixed)
    return ("nics.address", wanted, None, f"with any address instead of {wanted}, it") if wanted else None


RELAXATIONS: tuple[Relaxation, ...] = (
    Relaxation(
        ("host",), 0.4, lambda v, s: (v, replace(s, host=None)),
        _without("host", "requirements.host", lambda s: s.host),
    ),
    Relaxation(
        ("cluster",), 0.6, lambda v, s: (v, replace(s, cluster=None)),
        _without("cluster", "requirements.cluster", lambda s: s.cluster),
    ),
    Relaxation(
        ("labels",), 0.5, lambda v, s: (v, replace(s, labels=())),
        _without("labels", "requirements.host_labels", lambda s: dict(s.labels)),
    ),
    Relaxation(
        ("datastore", "disk"), 0.5, lambda v, s: (v, replace(s, datastore=None)),
        _without("datastore", "requirements.datastore", lambda s: s.datastore),
    ),
    Relaxation(("avoid",), 0.7, lambda v, s: (v, replace(s, avoid=frozenset())), _tell_avoid),
    Relaxation(("state",), 0.7, _all_ready, _tell_ready),
    Relaxation(("network", "addresses"), 0.8, lambda v, s: (v, replace(s, nics=(), fixed=())), _tell_networks),
    Relaxation(("addresses",), 0.3, _any_address, _tell_address),
)  # fmt: skip


def smallest_change(view: View, work: Work, shape: Shape) -> dict[str, Any] | None:
    """Return host, changes and a text for what would have to be otherwise; None: nothing that is known here helps."""
    seen = look(view, work, shape)
    failing = {f.name for f, room in zip(FILTERS, seen.rooms, strict=True) if bool((room <= 0).any())}
    options = [one for one in RELAXATIONS if failing & set(one.filters)]
    best: tuple[int, float] | None = None
    answer: tuple[list[Change], str] | None = None
    for size in range(len(options) + 1):
        if best is not None and best[0] <= size:
            break
        for chosen in combinations(options, size):
            found = _solve(view, work, shape, chosen)
            rank = (len(found[0]), sum(change.cost for change in found[0])) if found else None
            if rank is not None and rank[0] > 0 and (best is None or rank < best):
                best, answer = rank, found
    if answer is None:
        return None
    changes, host = answer
    return {
        "host": host, "text": f"{' and '.join(change.words for change in changes)} would fit on {host}",
        "changes": [{"field": c.field, "from": c.before, "to": c.to} for c in changes],
    }  # fmt: skip


def _solve(
    view: View, work: Work, shape: Shape, chosen: Sequence[Relaxation]
) -> tuple[list[Change], str] | None:
    """Return the changes and the host of the cheapest solution with these constraints given up."""
    wide, relaxed = view, shape
    for one in chosen:
        wide, relaxed = one.relax(wide, relaxed)
    seen = look(wide, work, relaxed)
    others = [room for f, room in zip(FILTERS, seen.rooms, strict=True) if f.name not in _SIZES]
    hosts = [h for h in range(len(view)) if all(room[h] > 0 for room in others)]
    for sizes, fitting, h in _cheapest_first(wide, work, relaxed, hosts):
        if fits(wide, work, replace(fitting, host=view.names[h])):
            told = [(one.cost, one.tell(view, shape, h)) for one in chosen]
            return [Change(*what, cost) for cost, what in told if what is not None] + sizes, view.names[h]
    return None


def _cheapest_first(
    view: View, work: Work, shape: Shape, hosts: Sequence[int]
) -> Iterator[tuple[list[Change], Shape, int]]:
    found = [(h, _smaller(view, work, shape, h)) for h in hosts]
    known = [(*sizes, h) for h, sizes in found if sizes is not None]
    yield from sorted(known, key=lambda item: (len(item[0]), sum(change.cost for change in item[0]), item[2]))


def _smaller(view: View, work: Work, shape: Shape, h: int) -> tuple[list[Change], Shape] | None:
    """Return the sizes that host h has room for and the shape with these; None: too small to be of use."""
    cpu_m = min(int(work.cpu_left_m[h]), int(view.cpus_m[h])) // _LEAST_CPU_M * _LEAST_CPU_M
    memory = int(min(float(work.memory_left_mib[h]), float(work.measured_left_mib[h])))
    disk = _disk_left(view, work, shape, h)
    if shape.cpu_m <= min(int(work.cpu_left_m[h]), int(view.cpus_m[h])):
        cpu_m = shape.cpu_m
    if disk < min(shape.disk_mib, shape.disk_min_mib) or cpu_m < min(shape.cpu_m, _LEAST_CPU_M):
        return None
    if memory < min(shape.memory_mib, _LEAST_MEMORY_MIB):
        return None
    fitting = replace(
        shape, cpu_m=min(shape.cpu_m, cpu_m), memory_mib=min(shape.memory_mib, memory),
        disk_mib=min(shape.disk_mib, disk),
    )  # fmt: skip
    rows = (
        ("cpu", shape.cpu_m / 1000, fitting.cpu_m / 1000, "cores"),
        ("memory_mib", shape.memory_mib, fitting.memory_mib, "MiB of memory"),
        ("disk_mib", shape.disk_mib, fitting.disk_mib, "MiB of disk"),
    )
    changes = [
        Change(field, need, have, f"{have:g} instead of {need:g} {unit}", (need - have) / need)
        for field, need, have, unit in rows if have < need
    ]  # fmt: skip
    return changes, fitting


def _disk_left(view: View, work: Work, shape: Shape, h: int) -> int:
    """Return the largest disk that fits on a datastore of host h; negative: not even a copy of the image."""
    cached = work.images.get(shape.image)
    copy = 0 if cached is not None and cached[h] else shape.image_mib
    found = [-1]
    for name in stores_of(view, shape):
        group = view.stores[name].group
        left = int(per_host(group, work.store_left[name], -1)[h])
        found.append(min(left, int(per_host(group, work.store_free[name], -1)[h]) - copy))
    return max(found)
