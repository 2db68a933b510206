"""The hosts of a simulation: how many of which size, what is added, lost or drained when, and which are held back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from control.placement.model import Store, View, millis
from core import units
from core.errors import Invalid
from core.states import HostState, InstanceKind

_SIZE = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)c/([0-9.]+ *[A-Za-z]*)((?:,[\w.-]+=[\w.-]+)*)$")
MOST_HOSTS = 100_000
_LIKE = "write for example 300x64c/192GiB, or 20x64c/192GiB,cluster=edge,rack=r1"
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Group:
    """Hosts of one size. labels: of the hosts; from_s: when they are added, None: there from the beginning."""

    count: int
    cpu_m: int
    memory_mib: int
    cluster: str = "default"
    labels: tuple[tuple[str, str], ...] = ()
    from_s: float | None = None


@dataclass(frozen=True)
class Leaving:
    """Hosts that are lost (what runs there starts elsewhere) or drained (it moves, or stays where nothing is free)."""

    count: int
    at_s: float
    state: HostState


@dataclass(frozen=True)
class Fleet:
    """All hosts; spare: so many of the largest take no arrivals, but step in for hosts that are lost."""

    groups: tuple[Group, ...]
    leaving: tuple[Leaving, ...] = ()
    spare: int = 0

    def __len__(self) -> int:
        return sum(group.count for group in self.groups)

    def resized(self, count: int) -> Fleet:
        """Return the same fleet with another number of hosts in its first group."""
        return replace(self, groups=(replace(self.groups[0], count=count), *self.groups[1:]))


def parse_group(text: str) -> Group:
    """Read "300x64c/192GiB", "64c/192GiB,cluster=edge,rack=r1", and "10x64c/192GiB@36h". Raise Invalid."""
    size, at, moment = text.partition("@")
    match = _SIZE.match(size.strip())
    if match is None:
        raise Invalid(f"{text!r} is no size of hosts", "hosts", {}, _LIKE)
    count, cpus, memory, about = match.groups()
    pairs = dict(part.split("=", 1) for part in about.split(",") if part)
    group = Group(
        int(count or 1), millis(float(cpus)), units.parse_mib(memory), pairs.pop("cluster", "default"),
        tuple(sorted(pairs.items())), parse_time(moment) if at else None,
    )  # fmt: skip
    if group.count > MOST_HOSTS:
        raise Invalid(f"{text!r} are more than {MOST_HOSTS} hosts", "hosts", {}, "simulate a part of them")
    if not (group.count and group.cpu_m and group.memory_mib):
        raise Invalid(f"{text!r} are hosts without anything", "hosts", {}, _LIKE)
    return group


def parse_leaving(text: str, state: HostState) -> Leaving:
    """Read "2@36h": so many hosts, and when. Raise Invalid."""
    count, _, moment = text.partition("@")
    if not count.isdigit() or not int(count) or not moment:
        raise Invalid(f"{text!r} does not say how many hosts and when", "hosts", {}, "write for example 2@36h")
    return Leaving(int(count), parse_time(moment), state)


def parse_time(text: str) -> float:
    """Read "90", "15m", "36h", "2d" as seconds. Raise Invalid."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if match is None:
        raise Invalid(f"{text!r} is no time", "hosts", {}, "write seconds, or for example 15m, 36h, 2d")
    return float(match.group(1)) * _UNITS_S[match.group(2)]


def view_of(fleet: Fleet) -> View:
    """Return the empty cloud. Hosts that are added later are disabled till then, and so are the spare ones.

    Disks are left out of it: there is one datastore without size, for instances without disks.
    """
    hosts = [group for group in fleet.groups for _ in range(group.count)]
    n, digits = len(hosts), len(str(max(len(hosts) - 1, 1)))
    cpu = np.array([host.cpu_m for host in hosts], np.int64)
    memory = np.array([host.memory_mib for host in hosts], np.int64)
    nothing, never = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    return View(
        names=tuple(f"h{number:0{digits}}" for number in range(n)), states=_states(fleet), unknown=never,
        clusters=tuple(host.cluster for host in hosts), labels=tuple(dict(host.labels) for host in hosts),
        kinds=(tuple(str(kind) for kind in InstanceKind),) * n, drivers=("simulated",) * n, cpus_m=cpu,
        cpu_limit_m=cpu, cpu_left_m=cpu.copy(), memory_limit_mib=memory, memory_left_mib=memory.copy(),
        physical_mib=memory, instances=nothing.copy(), nets={}, images={},
        stores={"local": Store(np.arange(n), nothing, nothing, nothing, never)},
    )  # fmt: skip


def spares(fleet: Fleet) -> list[int]:
    """Return the hosts that are held back, the largest first."""
    hosts = [group for group in fleet.groups for _ in range(group.count)]
    there = [h for h, host in enumerate(hosts) if host.from_s is None]
    return sorted(there, key=lambda h: (hosts[h].cpu_m, hosts[h].memory_mib, h), reverse=True)[: fleet.spare]


def additions(fleet: Fleet) -> list[tuple[float, list[int]]]:
    """Return which hosts are added when."""
    found: list[tuple[float, list[int]]] = []
    first = 0
    for group in fleet.groups:
        if group.from_s is not None:
            found.append((group.from_s, list(range(first, first + group.count))))
        first += group.count
    return found


def _states(fleet: Fleet) -> tuple[str, ...]:
    away = {*spares(fleet), *(h for _, hosts in additions(fleet) for h in hosts)}
    if len(away) == len(fleet):
        raise Invalid("no host is there for arrivals at first", "hosts", {"spare": fleet.spare}, "name more hosts")
    return tuple(str(HostState.DISABLED if h in away else HostState.READY) for h in range(len(fleet)))


def with_states(view: View, hosts: Iterable[int], state: HostState) -> View:
    """Return the view with some hosts in another state."""
    states = list(view.states)
    for h in hosts:
        states[h] = str(state)
    return replace(view, states=tuple(states))
