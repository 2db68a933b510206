"""What an LXD host needs before its first container: a pool and bridges. Plan pure, apply thin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import HostFault

POOL = "default"
BRIDGE = "lxcbr0"


@dataclass(frozen=True)
class Change:
    """One POST: collection, body, and what it does in words."""

    collection: str
    body: dict[str, Any]
    words: str


def changes(
    pools: Sequence[Mapping[str, Any]], networks: Sequence[Mapping[str, Any]], bridges: Sequence[tuple[str, str]]
) -> list[Change]:
    """Return what is missing. bridges: (name, cidr or ""), none: one bridge, unless LXD manages some already.

    pools and networks as in GET /1.0/storage-pools and /1.0/networks with recursion=1. A pool of the operator's by
    our pool's name is used as it is. Raise HostFault if a bridge has another address than the one asked for.
    """
    found = []
    if POOL not in [pool["name"] for pool in pools]:
        words = f"storage pool {POOL} (dir: sizes of disks are not enforced)"
        found.append(Change("storage-pools", {"name": POOL, "driver": "dir"}, words))
    there = {network["name"]: network for network in networks}
    if not bridges and not any(network["managed"] and network["type"] == "bridge" for network in networks):
        bridges = [(BRIDGE, "")]
    for name, cidr in bridges:
        if name not in there:
            found.append(Change("networks", _network(name, cidr), f"bridge {name} {cidr}".rstrip()))
        elif cidr and there[name]["managed"]:
            _same_address(there[name], cidr)
    return found


def _network(name: str, cidr: str) -> dict[str, Any]:
    """Return a bridge with LXD's DHCP. With an address of the operator's plan, that plan routes it: no NAT."""
    config = {"ipv4.address": cidr or "auto", "ipv4.nat": "false" if cidr else "true", "ipv6.address": "none"}
    return {"name": name, "type": "bridge", "config": config}


def _same_address(network: Mapping[str, Any], cidr: str) -> None:
    seen = network["config"].get("ipv4.address", "none")
    if seen != cidr:
        raise HostFault(
            f"bridge {network['name']} has the address {seen}, not {cidr}",
            evidence={"bridge": network["name"], "seen": seen, "wanted": cidr},
            fix=f"ask for {seen}, or change it by hand: lxc network set {network['name']} ipv4.address {cidr}",
        )
