"""Rules between instances, as an exact model can keep them: so many of a group at most in each domain.

Whom it cannot express stays. Rules that are not hard are wishes (wishes.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from control.placement.affinity import matches
from control.placement.model import Ints, Mask, Rule
from control.rebalance.model import Scene


@dataclass(frozen=True)
class Cap:
    """members: which items; domain: of each host by number, -1 = none; most: by domain."""

    members: Mask
    domain: Ints
    most: Ints


def caps_of(scene: Scene) -> tuple[list[Cap], Scene]:
    """Return the caps that rules come to, and the scene in which those stay that other rules are about."""
    caps: list[Cap] = []
    bound = np.array([bool(item.shape.rank) for item in scene.items], np.bool_)
    for rule in dict.fromkeys(rule for item in scene.items for rule in item.shape.rules if _binds(rule)):
        members = np.array([matches(rule, item.shape.own_labels) for item in scene.items], np.bool_)
        carriers = np.array([rule in item.shape.rules for item in scene.items], np.bool_)
        if rule.together or (members != carriers).any():
            bound |= members | carriers
        else:
            caps.append(_cap(scene, rule, members))
    why = "a rank, or rules that bind others, decide where it is"
    items = tuple(
        replace(item, stays=why) if tied and not item.stays else item
        for item, tied in zip(scene.items, bound.tolist(), strict=True)
    )
    return caps, replace(scene, items=items)


def _binds(rule: Rule) -> bool:
    return rule.hard and not rule.on_hosts  # what is about hosts is part of where an instance may be


def _cap(scene: Scene, rule: Rule, members: Mask) -> Cap:
    domain = _domain(scene, rule)
    now = domain[[item.host for item, one in zip(scene.items, members.tolist(), strict=True) if one]]
    count = np.bincount(now[now >= 0], minlength=int(domain.max(initial=-1)) + 1)
    return Cap(members, domain, np.maximum(count, 1))


def _domain(scene: Scene, rule: Rule) -> Ints:
    if rule.domain == "host":
        return np.arange(len(scene.view))
    column = scene.view.column("labels", rule.domain)
    return np.where(column.where(lambda value: value is not None), column.codes, -1)
