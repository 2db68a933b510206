"""The hosts of a simulation: how many of which size, what is added, lost or drained when, and their networks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from control.placement.model import Net, Store, View, millis
from control.simulation.arrivals import Arrival
from core import units
from core.errors import Invalid
from core.states import HostState, InstanceKind

_BYTES, _ABOUT = r"([0-9.]+ *[A-Za-z]*)", r"((?:,[\w.-]+=[\w.-]+)*)$"
_SIZE = re.compile(rf"(?:(\d+)x)?(\d+(?:\.\d+)?)c/{_BYTES}(?:/{_BYTES})?{_ABOUT}")
_LIKE = "write for example 300x64c/192GiB, 300x64c/192GiB/2TiB with disks, or 20x64c/192GiB,cluster=edge,rack=r1"
_NET = re.compile(rf"([\w.-]+)=(\d+){_ABOUT}")
STORE = "local"
MOST_HOSTS = 100_000
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Group:
    """Hosts of one size. labels: of the hosts; from_s: when they are added, None: there from the beginning.

    disk_mib: of the one datastore of each; 0: disks are left out.
    """

    count: int
    cpu_m: int
    memory_mib: int
    cluster: str = "default"
    labels: tuple[tuple[str, str], ...] = ()
    from_s: float | None = None
    disk_mib: int = 0


@dataclass(frozen=True)
class Network:
    """So many addresses that all hosts with these labels draw from; cluster counts as a label."""

    name: str
    addresses: int
    labels: tuple[tuple[str, str], ...] = ()


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
    networks: tuple[Network, ...] = ()

    def __len__(self) -> int:
        return sum(group.count for group in self.groups)

    def resized(self, count: int) -> Fleet:
        """Return the same fleet with another number of hosts in its first group."""
        return replace(self, groups=(replace(self.groups[0], count=count), *self.groups[1:]))


def parse_group(text: str) -> Group:
    """Read "300x64c/192GiB", "64c/192GiB/2TiB,cluster=edge,rack=r1", "10x64c/192GiB@36h". Raise Invalid."""
    size, at, moment = text.partition("@")
    match = _SIZE.match(size.strip())
    if match is None:
        raise Invalid(f"{text!r} is no size of hosts", "hosts", {}, _LIKE)
    count, cpus, memory, disk, about = match.groups()
    pairs = dict(part.split("=", 1) for part in about.split(",") if part)
    group = Group(
        int(count or 1), millis(float(cpus)), units.parse_mib(memory), pairs.pop("cluster", "default"),
        tuple(sorted(pairs.items())), parse_time(moment) if at else None,
        units.parse_mib(disk) if disk else 0,
    )  # fmt: skip
    if group.count > MOST_HOSTS:
        raise Invalid(f"{text!r} are more than {MOST_HOSTS} hosts", "hosts", {}, "simulate a part of them")
    if not (group.count and group.cpu_m and group.memory_mib and (group.disk_mib or not disk)):
        raise Invalid(f"{text!r} are hosts without anything", "hosts", {}, _LIKE)
    return group


def parse_network(text: str) -> Network:
    """Read "lan=250" or "lan=250,cluster=edge": so many addresses, and on which hosts. Raise Invalid."""
    match = _NET.match(text.strip())
    if match is None:
        raise Invalid(f"{text!r} is no network", "network", {}, "write for example lan=250, or lan=250,cluster=edge")
    name, count, about = match.groups()
    pairs = dict(part.split("=", 1) for part in about.split(",") if part)
    return Network(name, int(count), tuple(sorted(pairs.items())))


def check(arrivals: Iterable[Arrival], fleet: Fleet) -> None:
    """Raise Invalid where arrivals ask for what is said of no hosts, or say two things of one image."""
    names = [one.name for one in fleet.networks]
    if len(set(names)) < len(names):
        raise Invalid("a network is named twice", "network", {"networks": names}, "name each network once")
    sizes = {group.disk_mib > 0 for group in fleet.groups}
    if len(sizes) > 1:
        raise Invalid("some hosts have disks and others none", "hosts", {}, "write the disks of all: 64c/192GiB/2TiB")
    images: dict[str, int] = {}
    for one in arrivals:
        if one.image and images.setdefault(one.image, one.image_mib) != one.image_mib:
            fix = "write the same size wherever it is named"
            raise Invalid(f"{one.name}: image {one.image} was of another size before", "image", {}, fix)
        if (one.disk_mib or one.image_mib) and sizes == {False}:
            fix = "write how large they are, for example 300x64c/192GiB/2TiB"
            raise Invalid(f"{one.name} takes room on a disk, and the hosts have none", "hosts", {}, fix)
        if one.network and one.network not in names:
            fix = f"write how many addresses it has, for example --network {one.network}=250"
            raise Invalid(f"{one.name} is in network {one.network}, which is not there", "network", {}, fix)


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

    Each host has one datastore: without size, for instances without disks, where nothing is said of it.
    """
    hosts = [group for group in fleet.groups for _ in range(group.count)]
    n, digits = len(hosts), len(str(max(len(hosts) - 1, 1)))
    cpu = np.array([host.cpu_m for host in hosts], np.int64)
    memory = np.array([host.memory_mib for host in hosts], np.int64)
    disk = np.array([host.disk_mib for host in hosts], np.int64)
    nothing, never = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    return View(
        names=tuple(f"h{number:0{digits}}" for number in range(n)), states=_states(fleet), unknown=never,
        clusters=tuple(host.cluster for host in hosts), labels=tuple(dict(host.labels) for host in hosts),
        kinds=(tuple(str(kind) for kind in InstanceKind),) * n, drivers=("simulated",) * n, cpus_m=cpu,
        cpu_limit_m=cpu, cpu_left_m=cpu.copy(), memory_limit_mib=memory, memory_left_mib=memory.copy(),
        physical_mib=memory, instances=nothing, images={},
        nets={one.name: _net(one, hosts) for one in fleet.networks},
        stores={STORE: Store(np.arange(n), disk, disk.copy(), disk.copy(), never)},
    )  # fmt: skip


def _net(network: Network, hosts: Sequence[Group]) -> Net:
    wanted = set(network.labels)
    reach = np.array([wanted <= {("cluster", host.cluster), *host.labels} for host in hosts], np.bool_)
    count = np.array([network.addresses], np.int64)
    return Net(reach, False, np.where(reach, 0, -1), count, count.copy())


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
