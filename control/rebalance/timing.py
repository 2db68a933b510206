"""How long moves take by what such steps usually take, and when all of a plan is done."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

from core.states import Verb

COPIED_BY = frozenset({"transfer", "carry"})  # steps that take as long as there is to copy
# Where no move was ever seen: so much for all other steps, and so many MiB a second (a link of 10 Gbit/s, half used).
REST_S, MIB_S = 3.0, 600.0
Usual = Mapping[tuple[str, str], float]  # (verb, step) -> p50 in seconds, of one driver


def usual_of(steps: Sequence[Mapping[str, object]], driver: str) -> dict[tuple[str, str], float]:
    """Return what steps usually take with a driver, out of the features' steps {verb, step, driver, p50_s}."""
    return {
        (str(one["verb"]), str(one["step"])): float(str(one["p50_s"])) for one in steps if one.get("driver") == driver
    }


def expected_s(verb: Verb, names: Sequence[str], carried_mib: int, typical_mib: float, usual: Usual) -> float:
    """Return the seconds that a move with these steps takes.

    What was usual was usual for a typical instance; what is copied takes longer in proportion to what there is to copy.
    """
    known = {name: usual[verb, name] for name in names if (verb, name) in usual}
    copied = sum(seconds for name, seconds in known.items() if name in COPIED_BY)
    rest = sum(known.values()) - copied if known else REST_S
    return round(rest + (copied * carried_mib / max(typical_mib, 1.0) if copied else carried_mib / MIB_S), 3)


@dataclass(frozen=True)
class Limits:
    """How many moves may go on at a time: in all, and of those that a host takes part in."""

    parallel: int = 4
    per_host: int = 2


Way = tuple[Hashable, Hashable, Sequence[int]]  # source, target, places of the moves that have to be over before


def may_begin(
    ways: Sequence[Way], waiting: Sequence[int], moving: Sequence[int], over: Collection[int], limits: Limits
) -> list[int]:
    """Return which of the moves that wait may begin now, by their places, in their order."""
    begun = list(moving)
    for n in waiting:
        on = [host for one in begun for host in ways[one][:2]]
        free = all(on.count(host) < limits.per_host for host in ways[n][:2])
        if len(begun) < limits.parallel and free and all(one in over for one in ways[n][2]):
            begun.append(n)
    return begun[len(moving) :]


def eta_s(ways: Sequence[Way], seconds: Sequence[float], limits: Limits) -> float:
    """Return when all moves are over, as they are carried out, when each takes so many seconds."""
    running: dict[int, float] = {}
    over: set[int] = set()
    waiting, clock = list(range(len(ways))), 0.0
    while waiting or running:
        for n in may_begin(ways, waiting, list(running), over, limits):
            waiting.remove(n)
            running[n] = clock + seconds[n]
        first = min(running, key=lambda one: (running[one], one))
        clock = running.pop(first)
        over.add(first)
    return round(clock, 3)
