"""Arrivals in the order of time, those of one moment as one batch, on hosts that come, are lost and are drained."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from control.placement.model import Floats, Request, Shape
from control.placement.weights import DEFAULT
from control.simulation.arrivals import Arrival
from control.simulation.fleet import Fleet, Leaving, additions, spares
from control.simulation.lives import Exits, Lives
from control.simulation.world import World
from core.states import HostState

FIRST_S = 86_400.0  # left out of means: it begins with an empty cloud
Progress = Callable[[float], None]  # gets how much is done, from 0 to 1
_Change = tuple[float, list[int] | Leaving]  # when, and which hosts are added or how many leave


@dataclass
class Outcome:
    """What became of the arrivals. empty_hosts_mean_percent None: it lasted no longer than a day."""

    placed: int = 0
    rejected: int = 0
    hosts_used_peak: int = 0
    empty_hosts_mean_percent: float | None = None
    first_rejection: dict[str, Any] | None = None  # name, at_s, why, change
    moved: int = 0  # off hosts that were lost or drained
    stranded: int = 0  # that were on lost hosts and fitted nowhere else
    stuck: int = 0  # that had to stay on draining hosts
    image_copies: int = 0  # that hosts had to fetch
    hosts: dict[str, str] = field(default_factory=dict, repr=False)  # name of an arrival -> where it was placed


class Run:
    """A cloud in the course of time."""

    def __init__(
        self, arrivals: Sequence[Arrival], fleet: Fleet, policy: str = DEFAULT, lives: Lives | None = None,
        seed: int = 0,
    ) -> None:  # fmt: skip
        """Take arrivals in the order of time. lives: what is foretold; seed: which hosts are lost or drained."""
        self.world, self.outcome = World(fleet, policy), Outcome()
        self._arrivals, self._lives, self._dice = arrivals, lives or Lives(None), random.Random(seed)
        self._changes: list[_Change] = [*additions(fleet), *((one.at_s, one) for one in fleet.leaving)]
        self._changes.sort(key=lambda change: change[0])
        self._spares = spares(fleet)
        self._ends: list[tuple[float, int]] = []
        self._exits = Exits(len(fleet))
        self._foreseen: list[tuple[float, int]] = []  # when an instance was expected to leave
        self._shapes: dict[tuple[Any, ...], Shape] = {}
        self._now = arrivals[0].arrival_s if arrivals else 0.0
        self._means_from = self._now + FIRST_S
        self._empty_s = self._measured_s = 0.0

    def all(self, *, until_rejection: bool = False, progress: Progress | None = None) -> Outcome:
        """Go through all of it, or up to the first moment at which something fits nowhere."""
        done = 0
        for at_s, batch in groupby(range(len(self._arrivals)), key=lambda n: self._arrivals[n].arrival_s):
            self._change_until(at_s)
            self._go_to(at_s)
            numbers = list(batch)
            self._arrive(numbers)
            done += len(numbers)
            if progress is not None:
                progress(done / len(self._arrivals))
            if until_rejection and self.outcome.rejected:
                break
        else:
            self._change_until(float("inf"))
        self.outcome.image_copies = self.world.copies
        if self._measured_s:
            self.outcome.empty_hosts_mean_percent = round(100 * self._empty_s / self._measured_s, 3)
        return self.outcome

    def _change_until(self, at_s: float) -> None:
        while self._changes and self._changes[0][0] <= at_s:
            when, change = self._changes.pop(0)
            self._go_to(max(when, self._now))
            if isinstance(change, Leaving):
                self._leave(change)
            else:
                self.world.set_state(change, HostState.READY)

    def _go_to(self, at_s: float) -> None:
        """Let time pass: instances leave, and others stay longer than was expected."""
        while self._ends and self._ends[0][0] <= at_s:
            end_s, instance = heapq.heappop(self._ends)
            self._pass(end_s)
            if instance in self.world.where:
                h, _ = self.world.remove(instance)
                self._exits.drop(h, instance)
        self._pass(at_s)
        while self._foreseen and self._foreseen[0][0] <= at_s:
            _, instance = heapq.heappop(self._foreseen)
            if instance in self.world.where:
                self._foresee(instance)

    def _pass(self, at_s: float) -> None:
        measured_s = at_s - max(self._now, self._means_from)
        if measured_s > 0:
            ready = self.world.ready()
            empty = int(np.count_nonzero(ready & ~self.world.used))
            self._empty_s += measured_s * empty / max(int(np.count_nonzero(ready)), 1)
            self._measured_s += measured_s
        self._now = max(self._now, at_s)

    def _foresee(self, instance: int) -> None:
        """Expect an instance to live as long as those of its age do."""
        arrival = self._arrivals[instance]
        exit_s = self._now + self._lives.left_s(arrival, self._now - arrival.arrival_s)
        self._exits.put(self.world.where[instance][0], instance, exit_s)
        heapq.heappush(self._foreseen, (exit_s, instance))

    def _arrive(self, numbers: Sequence[int]) -> None:
        refused = self._place(numbers)
        out = self.outcome
        for number in sorted({*numbers}.difference(refused)):
            h, _ = self.world.where[number]
            out.hosts[self._arrivals[number].name] = self.world.view.names[h]
            heapq.heappush(self._ends, (self._arrivals[number].end_s, number))
        out.placed += len(numbers) - len(refused)
        out.rejected += len(refused)
        out.hosts_used_peak = max(out.hosts_used_peak, int(np.count_nonzero(self.world.used)))
        if refused and out.first_rejection is None:
            first = self._arrivals[min(refused)]
            why = self.world.why_not(self._request(first))
            out.first_rejection = {"name": first.name, "at_s": first.arrival_s, **why}

    def _place(self, numbers: Sequence[int]) -> list[int]:
        refused = self.world.place({n: self._request(self._arrivals[n]) for n in numbers}, self._exit_s())
        if self._lives:
            for number in {*numbers}.difference(refused):
                self._foresee(number)
        return refused

    def _exit_s(self) -> Floats | None:
        return self._exits.from_now(self._now) if self._lives else None

    def _request(self, arrival: Arrival) -> Request:
        left_s = round(self._lives.left_s(arrival, self._now - arrival.arrival_s)) if self._lives else 0
        key = (
            arrival.kind, arrival.cpu_m, arrival.memory_mib, arrival.disk_mib, arrival.image, arrival.image_mib,
            arrival.network, left_s,
        )  # fmt: skip
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = arrival.shape(left_s)
        return Request(arrival.name, arrival.name, shape, arrival.owner)

    def _leave(self, change: Leaving) -> None:
        """Have hosts lost or drained, those that hold something first; spare ones step in for lost ones."""
        ready = np.flatnonzero(self.world.ready()).tolist()
        order = self._dice.sample(ready, len(ready))
        hosts = sorted(order, key=lambda h: not self.world.used[h])[: change.count]
        self.world.set_state(hosts, change.state)
        lost = change.state == HostState.FENCED
        if lost and self._spares:
            self.world.set_state(self._spares[: len(hosts)], HostState.READY)
            del self._spares[: len(hosts)]
        before = {instance: self.world.where[instance] for instance in self.world.on(hosts)}
        for instance in before:
            self.world.remove(instance)
            self._exits.drop(before[instance][0], instance)
        refused = self._place(list(before))
        self.outcome.moved += len(before) - len(refused)
        if lost:
            self.outcome.stranded += len(refused)
            return
        self.outcome.stuck += len(refused)
        for instance in refused:
            self.world.put_back(instance, *before[instance])
            if self._lives:
                self._foresee(instance)
