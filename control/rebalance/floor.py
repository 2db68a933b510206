"""The cloud while moves are made one after the other, by the production placement code: who fits where now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from control.placement import affinity
from control.placement.filters import needs_of
from control.placement.keeping import give_back
from control.placement.look import eligible, room_of
from control.placement.model import Ints, Mask, Shape, View
from control.placement.resources import store_room
from control.placement.weights import DEFAULT
from control.placement.within import Scoring, scoring_of, turn
from control.placement.work import Need, start, take
from control.rebalance.model import Item


class Floor:
    """What is left on all hosts, with the instances where they are by now.

    holding: what leaves a host frees nothing there. Who fits even then need not wait for anybody. policy: hosts are
    compared by those that their clusters name, else by this one; None: packs, as a plan for fewer hosts does anywhere.
    """

    def __init__(
        self, view: View, features: Mapping[str, Any] | None = None, *, holding: bool = False, policy: str | None = None
    ) -> None:
        self.view, self.work, self.holding, self.policy = view, start(view, features), holding, policy
        self.at: dict[str, int] = {}
        self._needs: dict[Shape, list[Need]] = {}

    def host_of(self, item: Item) -> int:
        """Return where it is by now."""
        return self.at.get(item.id, item.host)

    def targets(self, item: Item, among: Mask) -> Ints:
        """Return the places of hosts among these, other than its own, where it fits now."""
        here = self.host_of(item)
        if among[here]:
            among = among.copy()
            among[here] = False
        self._count(item, here, -1)
        hosts = np.flatnonzero(eligible(self.view, self.work, item.shape).mask & among)
        room = room_of(self.view, self.work, item.shape, self._needed(item.shape), hosts)
        self._count(item, here, 1)
        return hosts[room > 0]

    def fits(self, item: Item, target: int) -> bool:
        """Say whether it could go there now."""
        among = np.zeros(len(self.view), np.bool_)
        among[target] = True
        return len(self.targets(item, among)) > 0

    def best(self, item: Item, among: Mask) -> int | None:
        """Return the host among these that placement would choose, None: it fits on none."""
        at = self.targets(item, among)
        if not len(at):
            return None
        scoring = scoring_of(self.view, self.work, item.shape, self.policy) if self.policy else Scoring(DEFAULT)
        room = np.ones(len(at), np.int64)
        found = turn(self.view, self.work, item.shape, scoring, at, room, len(at), 1, single=True, tell=False)
        return int(found.hosts[found.order[0]])

    def move(self, item: Item, target: int) -> None:
        """Let it be on the target; what it had on its source is free again, unless that is held."""
        here, view, one = self.host_of(item), self.view, np.ones(1, np.int64)
        needs = self._needed(item.shape)
        stores = [(self._store(item.shape, target), np.zeros(1, np.int64))]
        take(view, self.work, item.shape, needs, np.array([target]), one, stores)
        if not self.holding:
            give_back(view, self.work, item.shape, here, item.store, known=False)
        self._count(item, target, 1)
        self.at[item.id] = target

    def _needed(self, shape: Shape) -> list[Need]:
        if shape not in self._needs:
            self._needs[shape] = needs_of(self.view, shape)
        return self._needs[shape]

    def _store(self, shape: Shape, h: int) -> str:
        at = np.array([h])
        rooms = {name: int(store_room(self.view, self.work, shape, name, at)[0]) for name in self.view.stores_of(shape)}
        return max(rooms, key=rooms.__getitem__)

    def _count(self, item: Item, h: int, by: int) -> None:
        """Let rules count it on a host, or no more."""
        if item.shape.own_labels or item.shape.rules:
            affinity.joined(self.view, self.work, item.shape, np.array([h]), np.array([by]))
