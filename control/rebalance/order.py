"""In which order moves can be made, so that no host is ever asked to hold more than it may, and no rule is broken.

Who finds no room yet waits for those that make it. Where all wait for one another, one goes by a third host first; what
cannot go even so is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from control.placement.model import View
from control.rebalance.floor import Floor
from control.rebalance.model import Item, Move, Scene

Wanted = tuple[Item, int]  # where it is to go


class _Order:
    def __init__(self, scene: Scene, features: Mapping[str, Any] | None) -> None:
        self.scene = scene
        self.now = Floor(scene.view, features)
        self.held = Floor(scene.view, features, holding=True)
        self.moves: list[Move] = []
        self.detours: set[str] = set()

    def go(self, item: Item, target: int) -> bool:
        """Add a move if it can be made now; say whether it can."""
        if not self.now.fits(item, target):
            return False
        source = self.now.host_of(item)
        after = [n for n, move in enumerate(self.moves) if move.item.id == item.id]
        if not self.held.fits(item, target):
            after += [n for n, move in enumerate(self.moves) if self._may_hinder(move, item, target)]
        self.moves.append(Move(item, source, target, tuple(sorted(set(after)))))
        self.now.move(item, target)
        self.held.move(item, target)
        return True

    @staticmethod
    def _may_hinder(move: Move, item: Item, target: int) -> bool:
        """Say whether an earlier move may have to be over: it leaves the target, or rules may be about both."""
        rules = (item.shape.rules or item.shape.own_labels) and (move.item.shape.rules or move.item.shape.own_labels)
        return move.source == target or bool(rules) or bool(item.shape.nics)

    def detour(self, item: Item, target: int) -> bool:
        """Let one of those that wait for one another go by a third host, once; say whether there is such a host."""
        if item.id in self.detours:
            return False
        among = self.scene.inside.copy()
        among[target] = False
        third = self.now.best(item, among)
        if third is None:
            return False
        self.detours.add(item.id)
        return self.go(item, third)


def ordered(
    scene: Scene, wanted: Sequence[Wanted], features: Mapping[str, Any] | None = None
) -> tuple[list[Move], list[Item]]:
    """Return the moves in an order in which each can be made, and the instances that had to be left out."""
    order, waiting = _Order(scene, features), list(wanted)
    while waiting:
        later = [(item, target) for item, target in waiting if not order.go(item, target)]
        if len(later) == len(waiting) and not any(order.detour(item, target) for item, target in later):
            break
        waiting = later
    return order.moves, [item for item, _ in waiting]


def first_refused(view: View, moves: Sequence[Move], features: Mapping[str, Any] | None = None) -> int | None:
    """Return the place of the first move that cannot be made when those before it were, None: all can."""
    floor = Floor(view, features)
    for n, move in enumerate(moves):
        if floor.host_of(move.item) != move.source or not floor.fits(move.item, move.target):
            return n
        floor.move(move.item, move.target)
    return None
