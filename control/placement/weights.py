"""What makes a host the better one among those that fit, as two tables: terms, and policies that weigh them.

Lower is better. The default packs: complementary shapes meet, tight hosts fill first, an empty host is opened last. Its
terms and factors are those that packed best on public traces (docs/facts/placement.md); a host that measures hot comes
even after the empty ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from control.placement import affinity
from control.placement.expressions import number_of
from control.placement.model import Column, Floats, Ints, Shape, View, per_host
from control.placement.work import CPU, MEMORY, Work, missing, rows_of

# Of the hosts at these places, before the factor; None: it says nothing.
Term = Callable[[View, Work, Shape, Ints], Floats | Ints | None]


_FEW = 4  # hosts


class Standing:
    """What is left of cores, memory and disk as shares of each host's capacity; kept up to date while hosts are taken.

    Hosts of the same capacities share what depends on those alone, so little of it is worked out per host.
    """

    def __init__(self, view: View, work: Work, shape: Shape) -> None:
        """Take the disk from the largest of the datastores that the shape may use."""
        rows = rows_of(view)
        disk, self._disk_row = np.zeros(len(view), np.int64), np.full(len(view), -1, np.int64)
        for name in view.stores_of(shape):
            limit = per_host(view.stores[name].group, view.stores[name].limit_mib)
            self._disk_row[limit > disk] = rows.alloc[name]
            disk = np.maximum(disk, limit)
        sizes = zip(view.cpu_limit_m.tolist(), view.memory_limit_mib.tolist(), disk.tolist(), strict=True)
        kinds = Column(list(sizes))
        limits = np.array(kinds.values, np.float64).reshape(-1, 3).T
        self._inverse = 1.0 / np.maximum(limits, 1.0)  # dimensions, kinds of hosts
        self._inverses = self._inverse.T.tolist()
        self._kind = kinds.codes
        # Three rows of shares left, by the capacity once more; the length of these shares; their sum.
        self._rows = np.empty((5, len(view)))
        self._update(work, np.arange(len(view)))
        self._seen = len(work.touched)
        self._answer: tuple[Shape, Ints, Floats, Floats] | None = None

    def refresh(self, work: Work) -> None:
        """Take account of what was taken since."""
        if self._seen == len(work.touched):
            return
        for hosts in work.touched[self._seen :]:
            if len(hosts) > _FEW:
                self._update(work, hosts)
            else:
                for h in hosts.tolist():
                    self._update_one(work, h)
        self._seen = len(work.touched)
        self._answer = None

    def _update(self, work: Work, hosts: Ints) -> None:
        inverse, row = self._inverse[:, self._kind[hosts]], self._disk_row[hosts]
        disk = np.where(row >= 0, work.left[row, hosts], 0)
        left = np.stack([work.left[CPU, hosts], work.left[MEMORY, hosts], disk]) * inverse
        self._rows[:3, hosts] = left * inverse
        self._rows[3, hosts] = np.sqrt(left[0] * left[0] + left[1] * left[1] + left[2] * left[2])
        self._rows[4, hosts] = left[0] + left[1] + left[2]

    def _update_one(self, work: Work, h: int) -> None:
        """Do as `_update`, to the last bit; a single host is faster without arrays."""
        inverse, row = self._inverses[self._kind[h]], int(self._disk_row[h])
        cpu = work.left.item(CPU, h) * inverse[0]
        memory = work.left.item(MEMORY, h) * inverse[1]
        disk = work.left.item(row, h) * inverse[2] if row >= 0 else 0.0
        self._rows[:, h] = (
            cpu * inverse[0], memory * inverse[1], disk * inverse[2],
            math.sqrt(cpu * cpu + memory * memory + disk * disk), cpu + memory + disk,
        )  # fmt: skip

    def after(self, shape: Shape, at: Ints) -> tuple[Floats, Floats]:
        """Return the cosine of need and what is left (1: the same proportions), and the sum left after one copy."""
        if self._answer is None or self._answer[0] is not shape or self._answer[1] is not at:
            need = np.array([[shape.cpu_m], [shape.memory_mib], [shape.disk_mib]], np.float64) * self._inverse
            norms = np.sqrt(need[0] * need[0] + need[1] * need[1] + need[2] * need[2])
            kind = self._kind[at]
            cpu, memory, disk, norm, total = self._rows.take(at, axis=1)
            along = shape.cpu_m * cpu + shape.memory_mib * memory + shape.disk_mib * disk
            cosine = along / np.maximum(norms[kind] * norm, 1e-12)
            self._answer = shape, at, cosine, total - (need[0] + need[1] + need[2])[kind]
        return self._answer[2:]


def _standing(view: View, work: Work, shape: Shape) -> Standing:
    found = work.kept.get(("standing", shape.datastore))
    if found is None:
        found = work.kept["standing", shape.datastore] = Standing(view, work, shape)
    found.refresh(work)
    return found


_OVERRUNS_S = (0, 900, 3600, 4 * 3600, 12 * 3600, 48 * 3600)


def _lifetime(view: View, work: Work, shape: Shape, at: Ints) -> Floats | None:
    """What outlives all others on a host keeps it from getting empty: how long it does, in steps."""
    if not shape.lifetime_s:
        return None
    return np.searchsorted(_OVERRUNS_S, shape.lifetime_s + work.now_s - work.exit_s[at]) / len(_OVERRUNS_S)


def _rank(view: View, work: Work, shape: Shape, at: Ints) -> Floats | None:
    """How far below the highest rank of these hosts each one is, from 0 to 1; 1 where it has none."""
    if not shape.rank:
        return None
    rank = number_of(shape.rank, view, work, shape)[at]
    known = rank[np.isfinite(rank)]
    span = known.max(initial=-np.inf) - known.min(initial=np.inf)
    below = known.max(initial=-np.inf) - rank
    return np.where(np.isfinite(rank), below / span if span > 0 else 0.0, 1.0)


TERMS: Mapping[str, Term] = {
    "balance": lambda view, work, shape, at: -_standing(view, work, shape).after(shape, at)[0],
    "left": lambda view, work, shape, at: _standing(view, work, shape).after(shape, at)[1],
    "empty": lambda view, work, shape, at: (work.instances[at] == 0).astype(np.int64),
    "image": lambda view, work, shape, at: missing(view, work, shape.image)[at],
    "lifetime": _lifetime,
    "failure": lambda view, work, shape, at: work.failure_ratio[at] if work.measured else None,
    "rules": affinity.preference,
    "rank": _rank,
    "load": lambda view, work, shape, at: work.load_ratio[at] if work.measured else None,
    "hot": lambda view, work, shape, at: work.hot[at].astype(np.int64) if work.measured else None,
}


@dataclass(frozen=True)
class Policy:
    """Factors by term. spreads: what it places makes a host worse for the next one, so each host takes one in turn."""

    factors: Mapping[str, float]
    spreads: bool = False


# A rule is kept even if that opens an empty host; a rank decides before anything else.
_ALWAYS = {"image": 0.2, "hot": 200_000.0, "failure": 0.5, "rules": 150_000.0, "rank": 1e7}
POLICIES: Mapping[str, Policy] = {
    "balanced": Policy({"balance": 1.0, "left": 0.1, "empty": 100_000.0, "load": 0.5, "lifetime": 0.1, **_ALWAYS}),
    "pack": Policy({"left": 1.0, "empty": 100_000.0, **_ALWAYS}),
    "spread": Policy({"left": -1.0, **_ALWAYS}, spreads=True),
    "load-aware": Policy({"load": 10.0, "left": -0.1, **_ALWAYS}, spreads=True),
}
DEFAULT = "balanced"


def scores(
    view: View, work: Work, shape: Shape, policy: Policy, at: Ints
) -> tuple[Floats, dict[str, Floats]]:
    """Return the scores of the hosts at these places, and their parts; terms that say nothing are left out."""
    parts: dict[str, Floats] = {}
    total = np.zeros(len(at))
    for name, factor in policy.factors.items():
        value = TERMS[name](view, work, shape, at)
        if value is not None:
            part: Any = factor * value
            parts[name] = part
            total += part
    return total, parts


def opens_last(shape: Shape, policy: Policy) -> bool:
    """Say whether the policy never prefers an empty or a hot host to one that runs something already and is not hot.

    Then those hosts (work.preferred) need not be compared with the others.
    """
    return "empty" in policy.factors and not shape.rank and not shape.rules


_STEP = 1e6  # scores that differ by less than a millionth are equal; then the name decides


def best_first(view: View, score: Floats, hosts: Ints, count: int) -> Ints:
    """Return the places in hosts of the best count, in order; the same whatever the order of the hosts."""
    keys = np.rint(score * _STEP).astype(np.int64) * len(view) + view.rank[hosts]
    if count == 1:
        return np.array([keys.argmin()])
    if 4 * count < len(hosts):
        part = np.argpartition(keys, count)[:count]
        return part[np.argsort(keys[part])]
    return np.argsort(keys)[:count]
