"""What a plan is made of: instances with what a target must offer them, a goal, and moves in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np

from control.placement.model import Floats, Ints, Mask, Shape, View
from control.placement.weights import DEFAULT


class Kind(StrEnum):
    REBALANCE = "rebalance"  # lowest greatest load, by moves that are worth it
    CONSOLIDATE = "consolidate"  # fewest hosts in use, so that the others can be switched off
    EVACUATE = "evacuate"  # all off one host


THRESHOLD = 0.05


@dataclass(frozen=True)
class Goal:
    """host: by name, to be emptied; threshold: a load so little above the lowest possible is worth no move.

    policy: what placement compares hosts by where their cluster names none.
    """

    kind: Kind
    host: str = ""
    threshold: float = THRESHOLD
    policy: str = DEFAULT


@dataclass(frozen=True)
class Item:
    """An instance on a host (its place in the view). stays: why it cannot move; "" = it may.

    shape: what a target must offer; store: the datastore that has its disks, "" where they are seen from every target;
    carried_mib: what a move copies; load_m, load_mib: what it counts in the balance.
    """

    id: str
    name: str
    host: int
    shape: Shape
    store: str = ""
    carried_mib: int = 0
    cost_s: float = 1.0
    load_m: int = 0
    load_mib: int = 0
    live: bool = False
    stays: str = ""


@dataclass(frozen=True)
class Move:
    """after: places of earlier moves that have to be over before this one begins, since they make room for it."""

    item: Item
    source: int
    target: int
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scene:
    """The hosts of one pool (places in the view, by name), between which instances may be moved, and what is on them.

    cpu_m: thousandths of cores that are a full load of each host of the view: real ones where use was measured.
    """

    view: View
    hosts: tuple[int, ...]
    items: tuple[Item, ...]
    cpu_m: Ints

    @cached_property
    def inside(self) -> Mask:
        """Return which hosts of the view are of the pool."""
        found = np.zeros(len(self.view), np.bool_)
        found[list(self.hosts)] = True
        return found

    @cached_property
    def base(self) -> Ints:
        """Return what is reserved beside the items: thousandths of cores and MiB, by host."""
        taken = np.stack([
            self.view.cpu_limit_m - self.view.cpu_left_m, self.view.memory_limit_mib - self.view.memory_left_mib
        ])  # fmt: skip
        for item in self.items:
            taken[:, item.host] -= (item.shape.cpu_m, item.shape.memory_mib)
        return np.maximum(taken, 0)

    @cached_property
    def full(self) -> Ints:
        """Return what is a full load of each host: thousandths of cores and MiB."""
        return np.maximum(np.stack([self.cpu_m, self.view.memory_limit_mib]), 1)


@dataclass(frozen=True)
class Effect:
    """used: hosts of the pool with an instance; greatest: the greatest share of cores or memory, by load.

    broken: wishes that are, as (instance, rule); weight: of all that are broken, also those of instances elsewhere.
    """

    used: int
    empty: tuple[str, ...]
    greatest: float
    spread: float  # greatest less smallest
    broken: tuple[tuple[str, str], ...] = ()
    weight: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What is to be moved. notes: what was left out and why; optimal: proven, else the best that was found.
    """

    moves: tuple[Move, ...]
    before: Effect
    after: Effect
    optimal: bool
    method: str  # exact | in parts | heuristic | placement | none
    notes: tuple[str, ...] = field(default=())


def loads(scene: Scene, hosts: Sequence[int]) -> Floats:
    """Return the thousandths of cores and the MiB that count on each host when item n is on hosts[n]."""
    load = scene.base.astype(np.float64)
    if scene.items:
        at = np.array(hosts, np.int64)
        np.add.at(load[0], at, [item.load_m for item in scene.items])
        np.add.at(load[1], at, [item.load_mib for item in scene.items])
    return load


def shares(scene: Scene, hosts: Sequence[int]) -> Floats:
    """Return each host's greatest share of cores or memory when item n is on hosts[n]; 0 outside the pool."""
    return np.where(scene.inside, (loads(scene, hosts) / scene.full).max(axis=0, initial=0.0), 0.0)


def effect(scene: Scene, hosts: Sequence[int]) -> Effect:
    """Return what comes of it when item n is on hosts[n]."""
    inside = list(scene.hosts)
    held = set(hosts) | {h for h in inside if scene.base[:, h].any()}
    share = shares(scene, hosts)[inside]
    empty = tuple(scene.view.names[h] for h in inside if h not in held)
    greatest, smallest = float(share.max(initial=0.0)), float(share.min(initial=1.0))
    return Effect(len(inside) - len(empty), empty, round(greatest, 4), round(max(greatest - smallest, 0.0), 4))
