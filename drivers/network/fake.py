"""Bridges in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.errors import Conflict, HostFault
from drivers.hypervisor.base import NicAttachment
from drivers.network.base import Bridge, Network, NetworkSpec, NicSpec
from drivers.transport.fake import FakeTransport


class FakeNetwork(Network):
    """The networks of one simulated host."""

    def __init__(self, transport: FakeTransport) -> None:
        self._transport = transport

    async def bridges(self) -> list[Bridge]:
        async with self._transport.call("network.bridges") as host:
            return list(host.bridges.values())

    async def ensure(self, spec: NetworkSpec) -> bool:
        async with self._transport.call("network.ensure") as host:
            subject = f"network/{spec.name}"
            there = host.bridges.get(spec.bridge)
            wanted = (spec.cidr,) if spec.cidr else ()
            if spec.bridge == host.management_bridge and (there is None or wanted):
                raise Conflict(f"host {host.name}: {spec.bridge} carries the management address", subject)
            if there is None:
                if not spec.create:
                    raise HostFault(f"host {host.name}: no bridge {spec.bridge}", subject, fix="make it")
                host.bridges[spec.bridge] = Bridge(spec.bridge, wanted, (), True)
                return True
            if set(wanted) <= set(there.addresses):
                return False
            host.bridges[spec.bridge] = replace(there, addresses=there.addresses + wanted)
            return True

    async def ensure_nic(self, network: NetworkSpec, nic: NicSpec) -> NicAttachment:
        async with self._transport.call("network.ensure_nic") as host:
            if network.bridge not in host.bridges:
                raise HostFault(f"host {host.name}: no bridge {network.bridge}", f"network/{network.name}")
            return NicAttachment(
                f"eth{nic.index}", nic.mac, network.bridge, address=nic.address, gateway=nic.gateway,
                nameservers=nic.nameservers,
            )

    async def interfaces_of(self, macs: Sequence[str]) -> list[str]:
        async with self._transport.call("network.interfaces_of") as host:
            return [
                f"{instance.name}-{nic.name}"
                for instance in host.instances.values()
                if instance.spec is not None and instance.active is not None
                for nic in instance.active.nics
                if nic.mac in macs
            ]
