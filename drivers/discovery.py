"""BMCs that speak Redfish in a range of addresses: each is asked for its service root, which needs no password.

DSP0266, "Service root": GET /redfish/v1/ is answered without authentication.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from core.errors import Invalid

MOST = 4096  # addresses in one range
AT_ONCE = 256
ANSWER_S = 2.0  # on the way there, and until it answers
_MOST_BYTES = 2**16  # of an answer that is a service root
SCHEMES = ("https", "http")


@dataclass(frozen=True)
class FoundBmc:
    """address: as a machine's spec has it; the rest as the service root says, "" where it does not."""

    address: str
    vendor: str
    product: str
    version: str  # of Redfish
    uuid: str


def addresses(text: str) -> list[str]:
    """Return the addresses in 10.0.0.0/24, 10.0.0.5-10.0.0.40 or 10.0.0.5. Raise Invalid."""
    try:
        first, dash, last = text.partition("-")
        found = _between(first, last) if dash else [str(one) for one in _hosts(text)]
    except ValueError as error:
        raise Invalid(f"{text!r} is no range of addresses: {error}", "range", fix="write 10.0.0.0/24") from error
    if not 1 <= len(found) <= MOST:
        raise Invalid(f"{text} holds {len(found)} addresses, {MOST} at most can be asked", "range", fix="ask in parts")
    return found


def _hosts(text: str) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    network = ipaddress.ip_network(text.strip(), strict=False)
    if network.num_addresses > MOST + 2:
        raise ValueError(f"it holds {network.num_addresses} addresses, {MOST} at most can be asked")
    yield from network.hosts()


def _between(first: str, last: str) -> list[str]:
    low, high = ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())
    if low.version != high.version or int(high) < int(low):
        raise ValueError("its end is before its begin")
    if int(high) - int(low) >= MOST:
        raise ValueError(f"it holds {int(high) - int(low) + 1} addresses, {MOST} at most can be asked")
    return [str(ipaddress.ip_address(number)) for number in range(int(low), int(high) + 1)]


async def discover(text: str, *, port: int | None = None, scheme: str = "https") -> list[FoundBmc]:
    """Ask every address of a range, many at a time; return those that answer as a BMC does. Raise Invalid.

    No password is sent and nothing secret is read, so certificates are not checked here.
    """
    if scheme not in SCHEMES:
        raise Invalid(f"{scheme!r} is no scheme of Redfish", "range", fix=f"one of {', '.join(SCHEMES)}")
    bound = asyncio.Semaphore(AT_ONCE)
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=0)
    async with httpx.AsyncClient(verify=False, timeout=ANSWER_S, limits=limits, trust_env=False) as client:

        async def ask(host: str) -> FoundBmc | None:
            name = f"[{host}]" if ":" in host else host
            async with bound:
                return await _ask(client, f"{scheme}://{name}" + (f":{port}" if port else ""))

        found = await asyncio.gather(*(ask(host) for host in addresses(text)))
    return [one for one in found if one is not None]


async def _ask(client: httpx.AsyncClient, address: str) -> FoundBmc | None:
    """Return what answers at an address, None for nothing or something else."""
    try:
        async with asyncio.timeout(2 * ANSWER_S), client.stream("GET", f"{address}/redfish/v1/") as answer:
            content = b""
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > _MOST_BYTES:
                    return None
            root = httpx.Response(answer.status_code, content=content).json() if answer.is_success else {}
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, TimeoutError):
        return None
    if not isinstance(root, dict) or "RedfishVersion" not in root:
        return None
    words = (str(root.get(key) or "") for key in ("Vendor", "Product", "RedfishVersion", "UUID"))
    return FoundBmc(address, *words)
