"""Which policy scores where: one compares clusters, and a cluster that names one has its hosts compared by that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from control.placement.look import eligible, kind_of
from control.placement.model import Floats, Ints, Shape, View
from control.placement.weights import POLICIES, Policy, best_first, opens_last, scores
from control.placement.work import Work

_TOLD = 5  # clusters that are told of one by one


@dataclass(frozen=True)
class Scoring:
    """Policies by name. own: that of each cluster (by its number in the view) where several are to be compared by
    `policy` first; {} = `policy` alone scores all hosts."""

    name: str
    own: Mapping[int, str] = field(default_factory=dict)

    @property
    def policy(self) -> Policy:
        """Return the policy that scores all hosts, or compares clusters."""
        return POLICIES[self.name]

    def opens_last(self, shape: Shape) -> bool:
        """Say whether no policy here ever prefers an empty or a hot host."""
        others = set(self.own.values()) if self.own else ()
        return opens_last(shape, POLICIES[self.name]) and all(opens_last(shape, POLICIES[name]) for name in others)


_ALONE = {name: Scoring(name) for name in POLICIES}


@dataclass(frozen=True)
class Turn:
    """What one round takes from, and at most how many copies. order, most: places in hosts, best first, and copies of
    each; told: what the explanation says of the policy."""

    hosts: Ints
    room: Ints
    score: Floats
    parts: Mapping[str, Floats]
    order: Ints
    most: Ints
    wanted: int
    told: dict[str, Any] = field(default_factory=dict)


def scoring_of(view: View, work: Work, shape: Shape, across: str) -> Scoring:
    """Return what scores the hosts where a shape may be. across: the policy where no cluster names one."""
    if not view.policies:
        return _ALONE[across]
    key = ("scoring", kind_of(view, work, shape), across)
    found: Scoring | None = view.kept.get(key)
    if found is None:
        clusters = view.column("clusters")
        codes = np.unique(clusters.codes[eligible(view, work, shape).mask]).tolist()
        own = {code: view.policies.get(clusters.values[code], across) for code in codes}
        several = len(own) > 1 and set(own.values()) != {across}
        found = Scoring(across, own) if several else _ALONE[own[codes[0]] if len(own) == 1 else across]
        view.kept[key] = found
    return found


def turn(
    view: View, work: Work, shape: Shape, scoring: Scoring, hosts: Ints, room: Ints, first: int, wanted: int,
    *, single: bool, tell: bool,
) -> Turn:  # fmt: skip
    """Return from which of these hosts, on which the shape fits, up to wanted copies are taken next.

    Of several clusters it is the one of the best host across all; as many copies go there as would in a row. first: how
    many of the hosts, from the first on, may be taken from; single: each host takes one copy.
    """
    found = _by_score(view, work, shape, scoring.name, hosts, room, first, wanted, single)
    if not scoring.own:
        return found
    codes = view.column("clusters").codes[hosts]
    home = int(codes[found.order[0]])
    away = np.flatnonzero(codes[found.order] != home)
    row = int(away[0]) if len(away) else len(found.order)
    copies = min(wanted, int(found.most[:row].sum()))
    mine = np.flatnonzero(codes == home)
    may = int(np.searchsorted(mine, first))
    inside = _by_score(view, work, shape, scoring.own[home], hosts[mine], room[mine], may, copies, single)
    if tell:
        inside.told["across"] = _compared(view, scoring, found, codes)
    return inside


def _by_score(
    view: View, work: Work, shape: Shape, name: str, hosts: Ints, room: Ints, first: int, wanted: int, single: bool
) -> Turn:
    policy = POLICIES[name]
    score, parts = scores(view, work, shape, policy, hosts)
    order = best_first(view, score, hosts, min(wanted, first))
    most = np.minimum(room[order], 1 if single or policy.spreads else wanted)
    return Turn(hosts, room, score, parts, order, most, wanted, {"policy": name} if view.policies else {})


def _compared(view: View, scoring: Scoring, found: Turn, codes: Ints) -> dict[str, Any]:
    """Return how clusters compare: the best host of each by the policy across them, the best cluster first."""
    best = [there[best_first(view, found.score[there], found.hosts[there], 1)[0]]
            for code in scoring.own if len(there := np.flatnonzero(codes == code))]  # fmt: skip
    places = np.array(best, np.int64)
    ranked = places[best_first(view, found.score[places], found.hosts[places], _TOLD)]
    return {
        "policy": scoring.name,
        "clusters": [
            {"cluster": view.clusters[found.hosts[n]], "host": view.names[found.hosts[n]],
             "score": round(float(found.score[n]), 4)}
            for n in ranked.tolist()
        ],
    }  # fmt: skip
