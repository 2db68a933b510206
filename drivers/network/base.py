"""Contract of a virtual network on one host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from drivers.hypervisor.base import NicAttachment


@dataclass(frozen=True)
class NetworkSpec:
    """What the record says of a network. cidr: the bridge's own address on this host, "" = none, leave as found."""

    name: str
    kind: str  # bridge
    bridge: str
    cidr: str = ""
    create: bool = False  # make the bridge if it is not there


@dataclass(frozen=True)
class NicSpec:
    """A NIC to be attached. address with prefix, or "" for DHCP."""

    index: int
    mac: str
    address: str = ""
    gateway: str = ""
    nameservers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bridge:
    """A bridge as observed. addresses with prefix; ports: names of member interfaces."""

    name: str
    addresses: tuple[str, ...]
    ports: tuple[str, ...]
    up: bool


class Network(Protocol):
    """Networks of one technology on one host. Errors: Unreachable, HostFault, Conflict."""

    async def bridges(self) -> list[Bridge]: ...
    async def ensure(self, spec: NetworkSpec) -> bool:
        """Make the network usable on this host. Never touches the interface that carries the management address."""
        ...

    async def ensure_nic(self, network: NetworkSpec, nic: NicSpec) -> NicAttachment: ...
    async def interfaces_of(self, macs: Sequence[str]) -> list[str]:
        """Return host-side interfaces that still carry one of these MACs (to find leaks)."""
        ...
