"""What makes a host the better one among those that fit, as two tables: terms, and policies that weigh them.

Lower is better. The default packs: complementary shapes meet, tight hosts fill first, and those of many instances,
since hosts of few are the next to get empty; an empty host is opened last. Its terms and factors are those that packed
best on a public trace (docs/placement.md); a host that measures hot comes even after the empty ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from control.placement import affinity
from control.placement.expressions import number_of
from control.placement.model import Floats, Ints, Shape, View, per_host
from control.placement.work import CPU, MEMORY, Work, missing, rows_of
from core.errors import Invalid

# Of the hosts at these places, before the factor; None: it says nothing.
Term = Callable[[View, Work, Shape, Ints], Floats | Ints | None]


class Scale:
    """Each host's capacity in cores, memory and disk, the disk from the largest of some datastores that it has."""

    def __init__(self, view: View, stores: Sequence[str]) -> None:
        """Take the datastores that a shape may use."""
        rows = rows_of(view)
        disk, self.disk_row = np.zeros(len(view), np.int64), np.full(len(view), -1, np.int64)
        for name in stores:
            limit = per_host(view.stores[name].group, view.stores[name].limit_mib)
            self.disk_row[limit > disk] = rows.alloc[name]
            disk = np.maximum(disk, limit)
        # One datastore stands in one row; what is left of it where a host has none is of no use, and never looked at.
        self.one_row = np.array([[CPU], [MEMORY], [rows.alloc[stores[0]]]]) if len(stores) == 1 else None
        self.inverse = 1.0 / np.maximum(np.stack([view.cpu_limit_m, view.memory_limit_mib, disk]), 1)

    def left(self, work: Work, at: Ints) -> Ints:
        """Return what is left of cores, memory and disk on the hosts at these places."""
        if self.one_row is not None:
            found: Ints = work.left[self.one_row, at]
            return found
        row = self.disk_row[at]
        disk = np.where(row >= 0, work.left[row, at], 0)
        return np.stack([work.left[CPU, at], work.left[MEMORY, at], disk])


def scale_of(view: View, shape: Shape) -> Scale:
    """Return each host's capacity as a shape sees it, worked out once per view."""
    found: Scale | None = view.kept.get(("scale", shape.datastore))
    if found is None:
        found = view.kept["scale", shape.datastore] = Scale(view, view.stores_of(shape))
    return found


def _after(view: View, work: Work, shape: Shape, at: Ints) -> tuple[Floats, Floats]:
    """Return the cosine of need and what is left (1: the same proportions), and the sum left after one copy.

    All in shares of each host's capacity. Kept for the next term that asks for the same.
    """
    known = work.kept.get("after")
    if known is not None and known[0] is shape and known[1] is at and known[2] == work.changes:
        return known[3], known[4]
    scale = scale_of(view, shape)
    inverse = scale.inverse.take(at, axis=1)
    left = scale.left(work, at) * inverse
    need = np.array([[shape.cpu_m], [shape.memory_mib], [shape.disk_mib]]) * inverse
    lengths = np.sqrt(np.add.reduce(left * left)) * np.sqrt(np.add.reduce(need * need))
    cosine = np.add.reduce(left * need) / np.maximum(lengths, 1e-12)
    total = np.add.reduce(left) - np.add.reduce(need)
    work.kept["after"] = shape, at, work.changes, cosine, total
    return cosine, total


_OVERRUNS_S = (0, 900, 3600, 4 * 3600, 12 * 3600, 48 * 3600)


def _lifetime(view: View, work: Work, shape: Shape, at: Ints) -> Floats | None:
    """What outlives all others on a host keeps it from getting empty: how long it does, in steps."""
    if not shape.lifetime_s:
        return None
    return np.searchsorted(_OVERRUNS_S, shape.lifetime_s + work.now_s - work.exit_s[at]) / len(_OVERRUNS_S)


def per_core(view: View) -> Floats:
    """Return for each host what one instance is for each core that may be given away."""
    found: Floats | None = view.kept.get("per_core")
    if found is None:
        found = view.kept["per_core"] = -1000.0 / np.maximum(view.cpu_limit_m, 1000)
    return found


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
    "balance": lambda view, work, shape, at: -_after(view, work, shape, at)[0],
    "left": lambda view, work, shape, at: _after(view, work, shape, at)[1],
    "crowd": lambda view, work, shape, at: work.instances[at] * per_core(view)[at],
    "count": lambda view, work, shape, at: work.instances[at],
    "order": lambda view, work, shape, at: view.rank[at] / len(view),
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

    @cached_property
    def usual(self) -> tuple[float, ...] | None:
        """Return the factors that `usual_scores` takes; None: other terms, or another order, which rounds otherwise."""
        spoken = [name for name in self.factors if name not in _SELDOM]
        known = spoken == [name for name in _USUAL if name in self.factors]
        return tuple(self.factors.get(name, 0.0) for name in _USUAL) if known else None

    @cached_property
    def weighs_empty(self) -> bool:
        """Say whether an empty host is worse than one without a copy of the image."""
        return self.factors.get("empty", 0.0) > self.factors.get("image", 0.0)


_USUAL = ("balance", "left", "crowd", "empty", "image")
# Terms that say nothing where nothing is measured, of shapes with no lifetime, no rank and no soft rules.
_SELDOM = ("lifetime", "failure", "rules", "rank", "load", "hot")

# A rule is kept even if that opens an empty host; a rank decides before anything else.
_ALWAYS = {"image": 0.2, "hot": 200_000.0, "failure": 0.5, "rules": 150_000.0, "rank": 1e7}
_PACKS = {"balance": 1.0, "left": 1.0, "crowd": 1.0, "empty": 100_000.0, "load": 0.5, "lifetime": 0.1, **_ALWAYS}
POLICIES: Mapping[str, Policy] = {
    "balanced": Policy(_PACKS),
    "fragmentation-aware": Policy({"balance": 1.0, "left": 0.1, "empty": 100_000.0, **_ALWAYS}),
    "lifetime-aware": Policy({**_PACKS, "lifetime": 3.0}),
    "image-local": Policy({**_PACKS, "image": 150_000.0}),
    "failure-aware": Policy({**_PACKS, "failure": 20.0}),
    "pack": Policy({"left": 1.0, "empty": 100_000.0, **_ALWAYS}),
    "spread": Policy({"left": -1.0, **_ALWAYS}, spreads=True),
    "load-aware": Policy({"load": 10.0, "left": -0.1, **_ALWAYS}, spreads=True),
    "best-fit": Policy({"left": 1.0, **_ALWAYS}),
    "first-fit": Policy({"order": 1.0, **_ALWAYS}),
    "striping": Policy({"count": 1.0, **_ALWAYS}, spreads=True),
}
DEFAULT = "balanced"


def check_policy(name: str) -> None:
    """Raise Invalid when there is no policy of that name."""
    if name not in POLICIES:
        raise Invalid(f"there is no policy {name!r}", "policy", {}, f"there are {', '.join(POLICIES)}")


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


FEW = 12  # hosts that are scored one by one: so many calls of NumPy take longer


def usual_scores(
    factors: tuple[float, ...], need: Ints, left: Ints, inverse: Floats, crowd: Floats, lacks: Ints
) -> Floats:  # fmt: skip
    """Return the scores as `scores` does, to the last bit, where the seldom terms say nothing; with fewer steps.

    None of the hosts is empty. need: cores, memory, disk; left and inverse: of these, and hosts; lacks: 1 where there
    is no copy of the image.
    """
    sizes = need.tolist()
    if len(crowd) > FEW:
        found: Floats = _usual(factors, sizes, left, inverse, crowd, lacks, False, np.sqrt, np.maximum)
        return found
    each = zip(left.T.tolist(), inverse.T.tolist(), crowd.tolist(), lacks.tolist(), strict=True)
    return np.array([_usual(factors, sizes, *one, False, math.sqrt, max) for one in each])


def usual_score(
    factors: tuple[float, ...], need: Sequence[int], left: Sequence[int], inverse: Sequence[float], crowd: float,
    lacks: int, *, empty: bool,
) -> float:  # fmt: skip
    """Return the score of one host."""
    return float(_usual(factors, need, left, inverse, crowd, lacks, empty, math.sqrt, max))


def usual_grid(factors: tuple[float, ...], need: Any, left: Any, inverse: Any, crowd: Floats, lacks: Ints) -> Floats:
    """Return the scores of several shapes; as `usual_scores`, but with shapes before hosts."""
    found: Floats = _usual(factors, need, left, inverse, crowd, lacks, False, np.sqrt, np.maximum)
    return found


def _usual(
    factors: tuple[float, ...], need: Any, left: Any, inverse: Any, crowd: Any, lacks: Any, empty: bool,
    sqrt: Callable[[Any], Any], larger: Callable[[Any, Any], Any],
) -> Any:  # fmt: skip
    """Return the score of one host, or of many as arrays. What is made of them is changed in place, they are not."""
    a, b, c = left[0] * inverse[0], left[1] * inverse[1], left[2] * inverse[2]
    x, y, z = need[0] * inverse[0], need[1] * inverse[1], need[2] * inverse[2]
    balance, total, crowded, opened, image = factors
    over = a + b + c
    over -= x + y + z
    cosine = a * x
    cosine += b * y
    cosine += c * z
    x *= x
    y *= y
    z *= z
    x += y
    x += z
    lengths = sqrt(a * a + b * b + c * c)
    lengths *= sqrt(x)
    score = balance * -(cosine / larger(lengths, 1e-12))
    over *= total
    score += over
    score += crowded * crowd
    score += opened if empty else 0.0
    score += image * lacks
    return score


def opens_last(shape: Shape, policy: Policy) -> bool:
    """Say whether the policy never prefers an empty or a hot host to one that runs something already and is not hot.

    Then those hosts (work.preferred) need not be compared with the others.
    """
    return policy.weighs_empty and not shape.rank and (not shape.rules or all(rule.hard for rule in shape.rules))


_STEP = 1e6  # scores that differ by less than a millionth are equal; then the name decides


def key_of(score: float) -> int:
    """Return a score as it counts; the same for scores that are equal."""
    return round(score * _STEP)


def keys_of(view: View, score: Floats, hosts: Ints) -> Ints:
    """Return what sorts hosts by their scores, and equal ones by name."""
    found: Ints = np.rint(score * _STEP).astype(np.int64) * len(view) + view.rank[hosts]
    return found


def best_first(view: View, score: Floats, hosts: Ints, count: int) -> Ints:
    """Return the places in hosts of the best count, in order; the same whatever the order of the hosts."""
    keys = keys_of(view, score, hosts)
    if count == 1:
        return np.array([keys.argmin()])
    if 4 * count < len(hosts):
        part = np.argpartition(keys, count)[:count]
        return part[np.argsort(keys[part])]
    return np.argsort(keys)[:count]
