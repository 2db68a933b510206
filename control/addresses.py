"""Address arithmetic of leases, without a database: ranges, what of them is taken, the next free one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, ip_address
from itertools import repeat
from socket import AF_INET, inet_ntop, inet_pton
from struct import unpack


@dataclass(frozen=True)
class Range:
    """First to last address, both included, as integers. host_id None: good on every host."""

    first: int
    last: int
    prefix_length: int
    gateway: str
    host_id: str | None = None

    def __contains__(self, address: int) -> bool:
        return self.first <= address <= self.last


def number(address: str) -> int:
    """Return an address as an integer. Raise ValueError."""
    try:
        return int.from_bytes(inet_pton(AF_INET, address))  # a tenth of what ip_address takes
    except OSError:
        return int(ip_address(address))


def numbers(texts: Sequence[str]) -> tuple[int, ...]:
    """Return many addresses as integers. Raise ValueError."""
    try:
        return unpack(f">{len(texts)}I", b"".join(map(inet_pton, repeat(AF_INET), texts)))
    except OSError:
        return tuple(map(number, texts))


def text(address: int) -> str:
    """Return an IPv4 address as text."""
    return inet_ntop(AF_INET, address.to_bytes(4))


def of_bridge(cidr: str, host_id: str | None = None) -> list[Range]:
    """Return all of a bridge's subnet but network, broadcast and the bridge's own address, which is the gateway."""
    bridge = IPv4Interface(cidr)
    net = bridge.network
    if net.prefixlen > 30:
        return []
    own, low, high = int(bridge.ip), int(net.network_address) + 1, int(net.broadcast_address) - 1
    parts = [(low, min(own - 1, high)), (max(own + 1, low), high)]
    return [Range(a, b, net.prefixlen, str(bridge.ip), host_id) for a, b in parts if a <= b]


def reserved(subnet: str, gateway: str) -> set[int]:
    """Return the addresses of a pool's subnet that no instance may get. subnet may name the bridge's own address."""
    if not subnet:
        return set()
    own = IPv4Interface(subnet)
    taken = {int(own.network.network_address), int(own.network.broadcast_address), int(own.ip)}
    return taken | ({number(gateway)} if gateway else set())


def free(ranges: Sequence[Range], taken: set[int]) -> Iterator[tuple[Range, int]]:
    """Yield free addresses, lowest of the first range first; taken may grow between two."""
    for item in ranges:
        for address in range(item.first, item.last + 1):
            if address not in taken:
                yield item, address


def count_free(ranges: Sequence[Range], taken: set[int]) -> int:
    """Return how many addresses of the ranges (which do not overlap) are not taken."""
    whole = sum(item.last - item.first + 1 for item in ranges)
    ordered = sorted(taken)
    return whole - sum(bisect_right(ordered, item.last) - bisect_left(ordered, item.first) for item in ranges)


def range_with(ranges: Sequence[Range], address: int) -> Range | None:
    """Return the range that holds an address."""
    return next((item for item in ranges if address in item), None)
