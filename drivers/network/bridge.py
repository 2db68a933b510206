"""Networks that are bridges of the host. Facts and changes by iproute2; the plan is pure."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import Conflict, HostFault
from drivers.hypervisor.base import NicAttachment
from drivers.network.base import Bridge, Network, NetworkSpec, NicSpec
from drivers.transport.base import Transport

_LOOK = "echo $SSH_CONNECTION; ip -json -details address"
_FRESH_S = 30.0  # bridges seen less long ago are taken to be there still when a NIC is planned
INTERFACES_DIR = "/etc/network/interfaces.d"  # ifupdown, on Debian


@dataclass(frozen=True)
class Links:
    """The host's interfaces as `ip` tells them; management: the one that carries the address we came by."""

    links: tuple[Mapping[str, Any], ...]
    management: str

    def find(self, name: str) -> Mapping[str, Any] | None:
        """Return a link by name."""
        return next((link for link in self.links if link["ifname"] == name), None)

    def bridges(self) -> list[Bridge]:
        """Return the bridges, with their IPv4 addresses and ports."""
        return [
            Bridge(
                name=link["ifname"], addresses=_addresses(link), up="UP" in link["flags"],
                ports=tuple(sorted(port["ifname"] for port in self.links if port.get("master") == link["ifname"])),
            )
            for link in self.links if _is_bridge(link)
        ]  # fmt: skip


def parse(text: str) -> Links:
    """Return the links from what _LOOK printed: SSH_CONNECTION, then JSON."""
    connection, _, body = text.partition("\n")
    links = tuple(json.loads(body))
    came_to = (connection.split() + [""] * 3)[2]
    management = next((n["ifname"] for n in links if came_to in [a.split("/")[0] for a in _addresses(n)]), "")
    return Links(links, management)


def _addresses(link: Mapping[str, Any]) -> tuple[str, ...]:
    found = [a for a in link.get("addr_info", []) if a.get("family") == "inet"]
    return tuple(f"{a['local']}/{a['prefixlen']}" for a in found)


def _is_bridge(link: Mapping[str, Any]) -> bool:
    return bool(link.get("linkinfo", {}).get("info_kind") == "bridge")


def commands(links: Links, want: NetworkSpec) -> list[list[str]]:
    """Return what makes the bridge as wanted; nothing if it is. Raise HostFault (absent), Conflict."""
    found = links.find(want.bridge)
    if found is None:
        if not want.create:
            raise HostFault(
                f"there is no bridge {want.bridge} on the host", f"network/{want.name}", {"bridge": want.bridge},
                "make it on the host, or let rackflow make it (a bridge with an address in the host's spec)",
            )
        make = [["ip", "link", "add", "name", want.bridge, "type", "bridge"]]
        address = [["ip", "address", "add", want.cidr, "dev", want.bridge]] if want.cidr else []
        return [*make, *address, ["ip", "link", "set", "dev", want.bridge, "up"]]
    _refuse(links, found, want)
    addresses = _addresses(found)
    change = [["ip", "address", "add", want.cidr, "dev", want.bridge]] if want.cidr and not addresses else []
    up = [] if "UP" in found["flags"] else [["ip", "link", "set", "dev", want.bridge, "up"]]
    return change + up


def _refuse(links: Links, found: Mapping[str, Any], want: NetworkSpec) -> None:
    """Raise Conflict where a change would touch the way by which the host is reached, or what others set up."""
    name, subject, addresses = want.bridge, f"network/{want.name}", _addresses(found)
    same = not want.cidr or want.cidr in addresses
    if not _is_bridge(found):
        raise Conflict(f"{name} on the host is no bridge", subject, {"bridge": name}, "choose another name")
    if name == links.management and not same:
        raise Conflict(
            f"{name} carries the host's management address and is left alone", subject,
            {"addresses": list(addresses)}, "leave its address out of the spec",
        )
    if addresses and not same:
        raise Conflict(
            f"{name} on the host has the address {', '.join(addresses)}, not {want.cidr}", subject,
            {"addresses": list(addresses), "wanted": want.cidr}, "correct the spec or the host",
        )


def interfaces_text(want: NetworkSpec) -> str:
    """Return the lines for ifupdown that make the bridge again at a boot."""
    return (
        f"# made by rackflow for network {want.name}\nauto {want.bridge}\n"
        f"iface {want.bridge} inet {'static' if want.cidr else 'manual'}\n"
        + (f"    address {want.cidr}\n" if want.cidr else "")
        + f"    pre-up ip link show {want.bridge} >/dev/null 2>&1 || ip link add name {want.bridge} type bridge\n"
        + f"    up ip link set dev {want.bridge} up\n"
    )


class BridgeNetwork(Network):
    """Bridges of one host."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._host = transport.endpoint.name
        self._changing = asyncio.Lock()
        self._seen: dict[str, float] = {}

    async def _look(self) -> Links:
        found = parse((await self._transport.run(["sh", "-c", _LOOK])).stdout)
        self._seen = {bridge.name: time.monotonic() for bridge in found.bridges()}
        return found

    async def bridges(self) -> list[Bridge]:
        """Return the host's bridges."""
        return (await self._look()).bridges()

    async def ensure(self, spec: NetworkSpec) -> bool:
        """Make the bridge as wanted, now and after a boot. Raise HostFault, Conflict (management, others' set-up)."""
        async with self._changing:
            plan = commands(await self._look(), spec)
            if plan and plan[0][:3] == ["ip", "link", "add"]:  # what was there is somebody else's to keep
                await self._persist(spec)
            for argv in plan:
                await self._apply(argv)
            if plan:
                await self._look()
            return bool(plan)

    async def _apply(self, argv: Sequence[str]) -> None:
        done = await self._transport.run(argv, sudo=True, check=False)
        if done.exit_code != 0 and "File exists" not in done.stderr:  # somebody was faster
            raise HostFault(
                f"{' '.join(argv)} failed on {self._host}: {done.stderr.strip()}", f"host/{self._host}",
                {"argv": list(argv), "seen": done.stderr.strip()}, "see the evidence",
            )

    async def _persist(self, spec: NetworkSpec) -> None:
        there = await self._transport.run(["test", "-d", INTERFACES_DIR], check=False)
        if there.exit_code == 0:
            await self._transport.put(
                interfaces_text(spec).encode(), f"{INTERFACES_DIR}/rackflow-{spec.bridge}", sudo=True
            )

    async def ensure_nic(self, network: NetworkSpec, nic: NicSpec) -> NicAttachment:
        """Return what to attach; libvirt makes the host's end at the start. Raise HostFault (no bridge)."""
        if time.monotonic() - self._seen.get(network.bridge, -_FRESH_S) >= _FRESH_S:
            links = await self._look()
            if network.bridge not in self._seen:
                commands(links, NetworkSpec(network.name, network.kind, network.bridge))
        return NicAttachment(
            name=f"eth{nic.index}", mac=nic.mac, bridge=network.bridge, address=nic.address, gateway=nic.gateway,
            nameservers=nic.nameservers,
        )  # fmt: skip

    async def interfaces_of(self, macs: Sequence[str]) -> list[str]:
        """Return host-side interfaces of these MACs: libvirt gives a tap its guest's MAC with fe in front."""
        wanted = {mac.lower().partition(":")[2] for mac in macs}
        if not wanted:
            return []
        links = (await self._look()).links
        return [link["ifname"] for link in links if str(link.get("address", "")).partition(":")[2] in wanted]
