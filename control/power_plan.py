"""Which idle hosts of a cluster may be off, and which that are off are needed. Pure.

What is on is enough when at least so many hosts are, and what is needed fits with its headroom on those that are on
without the largest few of them. Hosts are put to sleep as long as what is left is enough, and woken when what is on is
not: one condition for both, so that what was put to sleep is not woken before more is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blueprints.power import PowerSpec

RESOURCES = ("cpu", "memory_mib")


@dataclass(frozen=True)
class Candidate:
    """A host. gives: by resource, what it can give away; may_sleep: nothing is on it, nobody has it in hand.

    idle_s: since it held anything; switched_s: since it was switched off or on last.
    """

    name: str
    awake: bool  # ready; or on its way there
    asleep: bool
    gives: Mapping[str, float]
    may_sleep: bool = False
    idle_s: float = 0.0
    switched_s: float = float("inf")


@dataclass(frozen=True)
class Change:
    """What is to be done, by name, and why."""

    sleep: tuple[str, ...] = ()
    wake: tuple[str, ...] = ()
    reason: str = ""


def is_enough(awake: Sequence[Candidate], policy: PowerSpec, needed: Mapping[str, float]) -> bool:
    """Say whether these hosts, if they are on, hold what is needed as the policy wants it."""
    return len(awake) >= policy.min_awake and not short_of(awake, policy, needed)


def short_of(awake: Sequence[Candidate], policy: PowerSpec, needed: Mapping[str, float]) -> dict[str, float]:
    """Return by resource how much is missing, where something is."""
    found: dict[str, float] = {}
    for resource in RESOURCES:
        gives = sorted(one.gives[resource] for one in awake)
        room = sum(gives[: len(gives) - policy.spare_hosts] if policy.spare_hosts else gives)
        missing = needed[resource] * (1 + policy.headroom) - room
        if missing > 1e-6:
            found[resource] = missing
    return found


def plan(hosts: Sequence[Candidate], policy: PowerSpec, needed: Mapping[str, float], minute: int) -> Change:
    """Return which hosts are put to sleep, or woken. needed: by resource; minute: of the day, UTC."""
    awake = [one for one in hosts if one.awake]
    if not is_enough(awake, policy, needed):
        return _wake(hosts, awake, policy, needed)
    if not policy.may_sleep_at(minute):
        return Change()
    left = list(awake)
    chosen: list[str] = []
    for one in sorted(awake, key=lambda one: (-one.idle_s, one.name)):
        ripe = one.idle_s >= policy.idle_minutes * 60 and one.switched_s >= policy.rest_minutes * 60
        rest = [other for other in left if other is not one]
        if one.may_sleep and ripe and is_enough(rest, policy, needed):
            left, chosen = rest, [*chosen, one.name]
    return Change(sleep=tuple(chosen), reason=f"idle for {policy.idle_minutes} min; what is on is enough without it")


def _wake(
    hosts: Sequence[Candidate], awake: Sequence[Candidate], policy: PowerSpec, needed: Mapping[str, float]
) -> Change:
    """Return the fewest hosts to be woken, the largest first; all where even they are not enough."""
    on, chosen = list(awake), []
    missing = short_of(awake, policy, needed)
    why = ", ".join(f"{amount:.0f} {name}" for name, amount in missing.items()) or "hosts"
    by_size = sorted((o for o in hosts if o.asleep), key=lambda o: (-o.gives["memory_mib"], -o.gives["cpu"], o.name))
    for one in by_size:
        if is_enough(on, policy, needed):
            break
        on.append(one)
        chosen.append(one.name)
    return Change(wake=tuple(chosen), reason=f"what is on is short of {why}")
