"""What a simulation answers: what became of arrivals, how few hosts would do, which policy would have served better."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from control.placement.model import Request, Shape
from control.placement.weights import DEFAULT, POLICIES, check_policy
from control.simulation.arrivals import Arrival
from control.simulation.fleet import Fleet, check
from control.simulation.lives import Lives
from control.simulation.run import Progress, Run
from control.simulation.world import World
from core.errors import NoFit


@dataclass(frozen=True)
class Question:
    """What is asked. Arrivals in the order of time; fit: what it is counted of how often it still fits."""

    arrivals: Sequence[Arrival]
    fleet: Fleet
    policy: str = DEFAULT
    lives: Lives | None = None
    seed: int = 0
    until_rejection: bool = False
    find_min_hosts: bool = False
    fit: Shape | None = None


def answer(question: Question, progress: Progress | None = None) -> dict[str, Any]:
    """Return the figures of one policy, JSON-ready. Raise Invalid, NoFit."""
    check_policy(question.policy)
    check(question.arrivals, question.fleet)
    began_s = time.process_time()
    run = _run(question)
    out = run.all(until_rejection=question.until_rejection, progress=progress)
    told = {field.name: getattr(out, field.name) for field in fields(out) if field.repr}
    fits = None if question.fit is None else run.world.room_for(question.fit)
    fewest = min_hosts(question, progress) if question.find_min_hosts else None
    cpu_s = round(time.process_time() - began_s, 3)
    return {
        "policy": question.policy, "hosts": len(question.fleet), **told, "fits": fits, "min_hosts": fewest,
        "cpu_s": cpu_s,
    }  # fmt: skip


def _run(question: Question, fleet: Fleet | None = None) -> Run:
    return Run(question.arrivals, fleet or question.fleet, question.policy, question.lives, question.seed)


def compare(question: Question, progress: Progress | None = None) -> list[dict[str, Any]]:
    """Return the figures of every policy; one after the other, so progress goes from 0 to 1 once for each."""
    return [answer(replace(question, policy=name), progress) for name in POLICIES]


def min_hosts(question: Question, progress: Progress | None = None) -> int:
    """Return the fewest hosts of the first size with which nothing is rejected or stranded.

    Counts are tried upwards from what the volume needs, in growing steps, then between the last two; some count
    between may do where a higher one does not, since packing is not monotonous. Raise NoFit when none would do.
    """
    _check_each_fits(question)
    least = max(_least(question), question.fleet.spare + 1)
    most, step = least, 1
    while not _suffices(question, most, progress):
        if most > _enough(question):
            raise NoFit("no number of hosts of the first size would do: something else runs out", "hosts", {},
                        "--until-rejection says what")  # fmt: skip
        least, most, step = most + 1, most + step, 2 * step
    while least < most:
        middle = (least + most) // 2
        if _suffices(question, middle, progress):
            most = middle
        else:
            least = middle + 1
    return most


def _enough(question: Question) -> int:
    """Return how many hosts of the first size are one for each arrival, whatever is lost, drained and spared."""
    fleet = question.fleet
    return len(question.arrivals) + fleet.spare + sum(one.count for one in fleet.leaving)


def _suffices(question: Question, count: int, progress: Progress | None) -> bool:
    out = _run(question, question.fleet.resized(count)).all(until_rejection=True, progress=progress)
    return not (out.rejected or out.stranded)


def _check_each_fits(question: Question) -> None:
    world = World(replace(question.fleet.resized(1), spare=0), question.policy)
    shapes = {one.shape(): one for one in question.arrivals}
    for shape, one in shapes.items():
        if not world.room_for(shape):
            why = world.why_not(Request(one.name, one.name, shape))["why"]
            raise NoFit(
                f"{one.name} needs {shape.cpu_m / 1000:g} cores and {shape.memory_mib} MiB: no number of these hosts"
                f" would do: {why}", "hosts", {}, "simulate with larger hosts",
            )  # fmt: skip


def _least(question: Question) -> int:
    """Return how many hosts of the first size the volume needs at least beside the others."""
    first, *others = question.fleet.groups
    cpu_m, memory_mib = peak(question.arrivals)
    cpu_m -= sum(group.count * group.cpu_m for group in others)
    memory_mib -= sum(group.count * group.memory_mib for group in others)
    return max(-(-cpu_m // first.cpu_m), -(-memory_mib // first.memory_mib), 1)


def peak(arrivals: Sequence[Arrival]) -> tuple[int, int]:
    """Return the most cores, in thousandths, and the most MiB that are there at one time."""
    ends: list[tuple[float, int, int]] = []
    cpu_m = memory_mib = most_cpu_m = most_memory_mib = 0
    for one in arrivals:
        while ends and ends[0][0] <= one.arrival_s:
            _, cpu, memory = heapq.heappop(ends)
            cpu_m, memory_mib = cpu_m - cpu, memory_mib - memory
        heapq.heappush(ends, (one.end_s, one.cpu_m, one.memory_mib))
        cpu_m, memory_mib = cpu_m + one.cpu_m, memory_mib + one.memory_mib
        most_cpu_m, most_memory_mib = max(most_cpu_m, cpu_m), max(most_memory_mib, memory_mib)
    return most_cpu_m, most_memory_mib
