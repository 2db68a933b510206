"""The smallest change of a request, or of the cloud, with which a request would fit.

Constraints can be given up (a table says which, and at what cost beside the others), sizes can be made smaller. The
fewest changes win, of those the cheapest; every answer was verified by solving again with the changes made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from control.addresses import text as address_text
from control.placement.affinity import binding, carriers
from control.placement.filters import FILTERS
from control.placement.look import eligible, fits, fitting, room_by, shutting
from control.placement.model import Ints, Mask, Rule, Shape, View
from control.placement.resources import disk_left
from control.placement.twins import kinds_of_hosts, with_twin
from control.placement.work import CPU, MEASURED, MEMORY, Work
from core.states import HostState

_ONE_MORE = 0.9  # what one more host costs beside other changes
_KINDS_TRIED = 8  # of hosts, for one more of them
_RULES_TRIED = 4  # one by one; of its own, and of others
_NAMED = 3  # instances that have a rule
MOST = 3  # constraints given up at once
_SIZES = frozenset({"cpu", "memory", "measured-memory", "disk"})  # filters that a smaller size can pass
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
        asked = f"{words} {_in_words(before)}".strip()
        return (name, before, None, f"without requiring {asked}, it") if before else None

    return tell


def _in_words(value: Any) -> str:
    if value is True:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


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


def _tell_rules(view: View, shape: Shape, h: int) -> tuple[str, Any, Any, str] | None:
    told = [str(rule) for rule in shape.rules]
    return ("rules", told, None, f"without having to be {' and '.join(told)}, it") if told else None


def _wish(rule: Rule) -> Relaxation:
    """Return the relaxation that keeps one hard rule as a wish."""

    def relax(view: View, shape: Shape) -> tuple[View, Shape]:
        return view, replace(shape, rules=tuple(replace(r, hard=False) if r == rule else r for r in shape.rules))

    return Relaxation(
        ("rules",), 0.5, relax, lambda v, s, h: ("rules", str(rule), "wish", f'with "{rule}" only as a wish, it')
    )


def _of_others(rule: Rule) -> Relaxation:
    """Return the relaxation that makes a rule by which others keep the shape away a wish of theirs."""

    def tell(view: View, shape: Shape, h: int) -> tuple[str, Any, Any, str] | None:
        names = carriers(view, rule, h)
        whose = f"{', '.join(names[:_NAMED])}{' and more' if len(names) > _NAMED else ''}" or "others"
        return "rules of others", str(rule), "wish", f'with "{rule}" of {whose} only as a wish, it'

    return Relaxation(("rules",), 0.65, lambda v, s: (v, replace(s, ignores=(*s.ignores, rule))), tell)


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
    Relaxation(
        ("arch",), 0.6, lambda v, s: (v, replace(s, arch="")), _without("architecture", "arch", lambda s: s.arch)
    ),
    Relaxation(
        ("capabilities",), 0.6, lambda v, s: (v, replace(s, capabilities=frozenset())),
        _without("capabilities", "capabilities", lambda s: sorted(s.capabilities)),
    ),
    Relaxation(
        ("requires",), 0.5, lambda v, s: (v, replace(s, where="")), _without("that", "where", lambda s: s.where)
    ),
    Relaxation(("rules",), 0.6, lambda v, s: (v, replace(s, rules=())), _tell_rules),
    Relaxation(
        ("devices",), 0.6, lambda v, s: (v, replace(s, pci=())), _without("devices", "pci", lambda s: dict(s.pci))
    ),
    Relaxation(
        ("pinning", "cpu"), 0.4, lambda v, s: (v, replace(s, pinned=False)),
        _without("cores of its own", "pinned", lambda s: s.pinned),
    ),
    Relaxation(
        ("numa",), 0.3, lambda v, s: (v, replace(s, one_cell=False)),
        _without("one NUMA cell", "one_cell", lambda s: s.one_cell),
    ),
    Relaxation(
        ("hugepages",), 0.3, lambda v, s: (v, replace(s, hugepage_kib=0)),
        _without("pages of KiB", "hugepage_kib", lambda s: s.hugepage_kib),
    ),
    Relaxation(
        ("maintenance",), 0.7, lambda v, s: (replace(v, windows_s=None), s),
        lambda v, s, h: ("maintenance", v.names[h], None, f"without the coming maintenance of {v.names[h]}, it"),
    ),
    Relaxation(
        ("promised",), 0.7, lambda v, s: (replace(v, holds=()), s),
        lambda v, s, h: ("holds", v.names[h], None, f"without what is promised for later on {v.names[h]}, it"),
    ),
    Relaxation(("avoid",), 0.7, lambda v, s: (v, replace(s, avoid=frozenset())), _tell_avoid),
    Relaxation(("state",), 0.7, _all_ready, _tell_ready),
    Relaxation(("network", "addresses"), 0.8, lambda v, s: (v, replace(s, nics=(), fixed=())), _tell_networks),
    Relaxation(("addresses",), 0.3, _any_address, _tell_address),
)  # fmt: skip


def smallest_change(view: View, work: Work, shape: Shape) -> dict[str, Any] | None:
    """Return host, changes and a text for what would have to be otherwise; None: nothing that is known here helps."""
    shut = shutting(view, work, shape)
    hard = [rule for rule in dict.fromkeys(shape.rules) if rule.hard]
    others = binding(view, work, shape)[:_RULES_TRIED]
    known = (*RELAXATIONS, *map(_wish, hard[:_RULES_TRIED]), *map(_of_others, others))
    options = [one for one in known if shut & set(one.filters)]
    best: tuple[int, float] | None = None
    answer: tuple[list[Change], str] | None = None
    for size in range(min(len(options), MOST) + 1):
        if best is not None and best[0] <= size:
            break
        for chosen in combinations(options, size):
            found = _solve(view, work, shape, chosen)
            rank = (len(found[0]), sum(change.cost for change in found[0])) if found else None
            if rank is not None and rank[0] > 0 and (best is None or rank < best):
                best, answer = rank, found
    twin = _one_more(view, work, shape) if best is None or best > (1, _ONE_MORE) else None
    if twin is not None:
        return twin
    if answer is None:
        return None
    changes, host = answer
    return {
        "host": host, "text": f"{' and '.join(change.words for change in changes)} would fit on {host}",
        "changes": [{"field": c.field, "from": c.before, "to": c.to} for c in changes],
    }  # fmt: skip


def _one_more(view: View, work: Work, shape: Shape) -> dict[str, Any] | None:
    """Return the change to a cloud with one more host like one of those where the shape may be; None: none helps."""
    for h in kinds_of_hosts(view, shape, eligible(view, work, shape).mask)[:_KINDS_TRIED]:
        wider, left = with_twin(view, work, h)
        if len(view) in fitting(wider, left, shape):
            name = view.names[h]
            return {
                "host": name, "text": f"one more host like {name} would hold it",
                "changes": [{"field": "hosts", "from": None, "to": f"one more like {name}"}],
            }  # fmt: skip
    return None


def _solve(
    view: View, work: Work, shape: Shape, chosen: Sequence[Relaxation]
) -> tuple[list[Change], str] | None:
    """Return the changes and the host of the cheapest solution with these constraints given up."""
    wide, relaxed = view, shape
    for one in chosen:
        wide, relaxed = one.relax(wide, relaxed)
    hosts = np.flatnonzero(_without_sizes(wide, work, relaxed))
    for sizes, smaller, h in _cheapest_first(wide, work, relaxed, hosts):
        if fits(wide, work, replace(smaller, host=view.names[h])):
            told = [(one.cost, one.tell(view, shape, h)) for one in chosen]
            return [Change(*what, cost) for cost, what in told if what is not None] + sizes, view.names[h]
    return None


def _cheapest_first(
    view: View, work: Work, shape: Shape, hosts: Ints
) -> Iterator[tuple[list[Change], Shape, int]]:
    """Yield the sizes that hosts have room for where smaller ones would do; the smallest changes first."""
    cpu = np.minimum(work.left[CPU], view.cpus_m)[hosts]
    memory = np.minimum(work.left[MEMORY], work.left[MEASURED])[hosts]
    disk = disk_left(view, work, shape)[hosts]
    cpu = np.where(cpu >= shape.cpu_m, shape.cpu_m, cpu // _LEAST_CPU_M * _LEAST_CPU_M)
    good = (
        (disk >= min(shape.disk_mib, shape.disk_min_mib)) & (cpu >= min(shape.cpu_m, _LEAST_CPU_M))
        & (memory >= min(shape.memory_mib, _LEAST_MEMORY_MIB))
    )  # fmt: skip
    rows = ((cpu, shape.cpu_m), (memory, shape.memory_mib), (disk, shape.disk_mib))
    changed, cost = np.zeros(len(hosts), np.int64), np.zeros(len(hosts))
    for have, need in rows:
        changed += have < need
        cost += np.clip(need - have, 0, None) / max(need, 1)
    for n in np.lexsort((view.rank[hosts], cost, changed)).tolist():
        if good[n]:
            have = [min(int(row[n]), need) for row, need in rows]
            smaller = replace(shape, cpu_m=have[0], memory_mib=have[1], disk_mib=have[2])
            yield _smaller(shape, smaller), smaller, int(hosts[n])


def _smaller(shape: Shape, fitting: Shape) -> list[Change]:
    rows = (
        ("cpu", shape.cpu_m / 1000, fitting.cpu_m / 1000, "cores"),
        ("memory_mib", shape.memory_mib, fitting.memory_mib, "MiB of memory"),
        ("disk_mib", shape.disk_mib, fitting.disk_mib, "MiB of disk"),
    )
    return [
        Change(field, need, have, f"{have:.10g} instead of {need:.10g} {unit}", (need - have) / need)
        for field, need, have, unit in rows if have < need
    ]  # fmt: skip


def _without_sizes(view: View, work: Work, shape: Shape) -> Mask:
    """Return on which hosts a shape would fit if it were small."""
    good = eligible(view, work, shape).mask.copy()
    for constraint in FILTERS:
        room = None if constraint.name in _SIZES else room_by(view, work, shape, constraint)
        if room is not None:
            good &= room > 0
    return good
