"""Networks that are port groups: of the standard switches of ESXi hosts, or of a vCenter's distributed switch.

A network's bridge is the port group's name. One with a VLAN is asked for as NAME.VLAN ("lan.120"); one that rackflow
makes is made on the switch that carries the management address: of a cluster, on each of its hosts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from core.errors import Conflict, HostFault
from drivers.hypervisor.base import NicAttachment
from drivers.network.base import Bridge, Network, NetworkSpec, NicSpec
from drivers.transport.vsphere import VsphereTransport
from drivers.transport.vsphere_place import all_of, read, read_one

_VLANS = range(1, 4095)


@dataclass(frozen=True)
class PortGroup:
    """A port group by name. switch: the standard switch that it is on, "" = distributed; management: never changed."""

    name: str
    switch: str
    management: bool = False


def vlan_of(name: str) -> int:
    """Return the VLAN that a name ends in (lan.120 -> 120), 0 if none."""
    found = re.fullmatch(r".+\.(\d{1,4})", name)
    return int(found[1]) if found and int(found[1]) in _VLANS else 0


class PortGroupNetwork(Network):
    """Port groups of one place."""

    def __init__(self, transport: VsphereTransport) -> None:
        self._transport = transport
        self._host = transport.endpoint.name
        self._changing = asyncio.Lock()

    async def _look(self) -> list[PortGroup]:
        """Return the port groups that every host of the place has."""
        return await self._transport.call("listing the port groups of", self._ask)

    def _ask(self, content: Any) -> list[PortGroup]:
        place = self._transport.place
        hosts = read(content, self.systems(content), ["networkInfo.portgroup", "networkInfo.vnic"])
        by_host = [
            {one.spec.name: one.spec.vswitchName for one in values.get("networkInfo.portgroup", [])}
            for _, values in hosts
        ]
        managed = {nic.portgroup for _, values in hosts for nic in values.get("networkInfo.vnic", [])}
        everywhere = set.intersection(*map(set, by_host)) if by_host else set()
        there = read_one(content, place.compute, ["network"]).get("network", [])
        far = [one for one in there if isinstance(one, vim.dvs.DistributedVirtualPortgroup)]
        return [
            *(PortGroup(name, by_host[0][name], name in managed) for name in sorted(everywhere)),
            *(PortGroup(values["name"], "") for _, values in read(content, far, ["name"])),
        ]

    async def management(self) -> str:
        """Return the port group of the management address, "" if there is none."""
        return next((one.name for one in await self._look() if one.management), "")

    async def bridges(self) -> list[Bridge]:
        """Return the port groups; they have no addresses of the host, and the switch in the place of ports."""
        return [Bridge(one.name, (), (one.switch,) if one.switch else (), True) for one in await self._look()]

    async def ensure(self, spec: NetworkSpec) -> bool:
        """Make the port group where it may be made. Raise HostFault (absent), Conflict (management; an address)."""
        async with self._changing:
            found = {one.name: one for one in await self._look()}
            there = found.get(spec.bridge)
            if spec.cidr:
                raise Conflict(
                    f"port group {spec.bridge} on {self._host} cannot have the address {spec.cidr}",
                    f"network/{spec.name}", {"wanted": spec.cidr},
                    "leave the address out of the spec: the network's gateway is elsewhere",
                )  # fmt: skip
            if there is not None:
                return False
            if not spec.create:
                raise self._absent(spec, sorted(found))
            switch = next((one.switch for one in found.values() if one.management), "vSwitch0")
            await self._transport.call(f"making port group {spec.bridge} on", lambda c: self._make(c, spec, switch))
            return True

    def _make(self, content: Any, spec: NetworkSpec, switch: str) -> None:
        wanted = vim.host.PortGroup.Specification(
            name=spec.bridge, vlanId=vlan_of(spec.bridge), vswitchName=switch, policy=vim.host.NetworkPolicy()
        )
        for system in self.systems(content):
            # there already: somebody was faster, or was killed before the next host
            with suppress(vim.fault.AlreadyExists, vim.fault.DuplicateName):
                system.AddPortGroup(wanted)

    def systems(self, content: Any) -> list[Any]:
        """Return the hosts' network systems."""
        found = read(content, self._transport.place.hosts, ["configManager.networkSystem"])
        return [values["configManager.networkSystem"] for _, values in found]

    def _absent(self, spec: NetworkSpec, there: Sequence[str]) -> HostFault:
        return HostFault(
            f"there is no port group {spec.bridge} on {self._host}", f"network/{spec.name}", {"there": list(there)},
            "make it in vSphere, or let rackflow make it (a bridge without an address in the host's spec)",
        )

    async def ensure_nic(self, network: NetworkSpec, nic: NicSpec) -> NicAttachment:
        """Return what to attach. Raise HostFault (no such port group)."""
        found = [one.name for one in await self._look()]
        if network.bridge not in found:
            raise self._absent(network, found)
        return NicAttachment(
            name=f"eth{nic.index}", mac=nic.mac, bridge=network.bridge, model="vmxnet3", address=nic.address,
            gateway=nic.gateway, nameservers=nic.nameservers,
        )  # fmt: skip

    async def interfaces_of(self, macs: Sequence[str]) -> list[str]:
        """Return VM/MAC for each NIC of a VM that still has one of these MACs."""
        wanted = {mac.lower() for mac in macs}
        if not wanted:
            return []

        def ask(content: Any) -> list[str]:
            vms = all_of(
                content, self._transport.place.compute, [vim.VirtualMachine], ["name", "config.hardware.device"]
            )
            return [
                f"{values['name']}/{device.macAddress}" for _, values in vms
                for device in values.get("config.hardware.device", [])
                if isinstance(device, vim.vm.device.VirtualEthernetCard) and (device.macAddress or "").lower() in wanted
            ]  # fmt: skip

        return await self._transport.call("looking for NICs on", ask)
