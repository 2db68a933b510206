"""The cloud of a simulation at one moment: what runs where, what is left, and the engine that places on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from control.placement import engine
from control.placement.filters import needs_of
from control.placement.look import eligible, room_of
from control.placement.model import Floats, Ints, Mask, Request, Shape
from control.placement.work import start
from control.simulation.fleet import STORE, Fleet, view_of, with_states
from core.states import HostState


class World:
    """Hosts and what they hold, by numbers of instances. It is changed in place.

    copies: of images, that hosts had to fetch; they keep them.
    """

    def __init__(self, fleet: Fleet, policy: str) -> None:
        self._images: dict[str, Mask] = {}
        self.view = replace(view_of(fleet), images=self._images)
        self.where: dict[int, tuple[int, Shape]] = {}  # instance -> its host, and as what it was placed
        self.copies = 0
        self._policy = policy

    @property
    def used(self) -> Mask:
        """Return which hosts hold something."""
        return self.view.instances > 0

    def ready(self) -> Mask:
        """Return which hosts take instances."""
        return self.view.column("states").equal(str(HostState.READY))

    def set_state(self, hosts: Sequence[int], state: HostState) -> None:
        """Put hosts into another state."""
        self.view = with_states(self.view, hosts, state)

    def place(self, wanted: Mapping[int, Request], exit_s: Floats | None) -> list[int]:
        """Place instances, by number, together; return those that fit nowhere.

        exit_s: from now until each host is expected to be empty, None: nothing is known.
        """
        features = self._features(exit_s)
        choices = engine.choose(self.view, list(wanted.values()), features, policy=self._policy, tell=False)
        hosts = np.array([-1 if choice.host is None else choice.host for choice in choices], np.int64)
        for instance, h, choice in zip(wanted, hosts.tolist(), choices, strict=True):
            if h >= 0:
                self.where[instance] = h, choice.request.shape
        placed = hosts >= 0
        shapes = [choice.request.shape for choice in choices if choice.host is not None]
        self._take(hosts[placed], shapes)
        return [instance for instance, done in zip(wanted, placed.tolist(), strict=True) if not done]

    def put_back(self, instance: int, h: int, shape: Shape) -> None:
        """Have an instance on host h, which held it before."""
        self.where[instance] = h, shape
        self._take(np.array([h]), [shape])

    def remove(self, instance: int) -> tuple[int, Shape]:
        """Take an instance away; return where it was."""
        h, shape = self.where.pop(instance)
        self._count(np.array([h]), [shape], -1)
        return h, shape

    def on(self, hosts: Sequence[int]) -> list[int]:
        """Return the instances on hosts, oldest number first."""
        asked = set(hosts)
        return sorted(instance for instance, (h, _) in self.where.items() if h in asked)

    def why_not(self, request: Request) -> dict[str, Any]:
        """Return in words why a request fits nowhere now, and the smallest change that would fit."""
        (choice,) = engine.choose(self.view, [request], policy=self._policy)
        change = choice.record.get("change")
        return {"why": choice.record.get("summary", ""), "change": change["text"] if change else None}

    def room_for(self, shape: Shape) -> int:
        """Return how often a shape still fits."""
        work = start(self.view)
        at = np.flatnonzero(eligible(self.view, work, shape).mask)
        rooms = room_of(self.view, work, shape, needs_of(self.view, shape), at)
        return int(np.maximum(rooms, 0).sum())

    def _take(self, hosts: Ints, shapes: Sequence[Shape]) -> None:
        self._count(hosts, shapes, 1)
        for h, shape in zip(hosts.tolist(), shapes, strict=True):
            if shape.image:
                self._keep_copy(h, shape)

    def _count(self, hosts: Ints, shapes: Sequence[Shape], by: int) -> None:
        view, store = self.view, self.view.stores[STORE]
        np.subtract.at(view.cpu_left_m, hosts, [by * shape.cpu_m for shape in shapes])
        np.subtract.at(view.memory_left_mib, hosts, [by * shape.memory_mib for shape in shapes])
        np.add.at(view.instances, hosts, by)
        for left in (store.left_mib, store.free_mib):
            np.subtract.at(left, hosts, [by * shape.disk_mib for shape in shapes])
        for name, count in (nic for shape in shapes for nic in shape.nics):
            view.nets[name].left[0] -= by * count

    def _keep_copy(self, h: int, shape: Shape) -> None:
        """Let a host have a copy of the image from now on; as in `take`, it fills a disk and is nobody's allocation."""
        if shape.image not in self._images:
            self._images[shape.image] = np.zeros(len(self.view), np.bool_)
        there = self._images[shape.image]
        if not there[h]:
            there[h] = True
            self.view.stores[STORE].free_mib[h] -= shape.image_mib
            self.copies += 1

    def _features(self, exit_s: Floats | None) -> Mapping[str, Any] | None:
        if exit_s is None:
            return None
        return {"hosts": {name: {"exit_s": s} for name, s in zip(self.view.names, exit_s.tolist(), strict=True)}}
