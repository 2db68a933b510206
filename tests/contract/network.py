"""What every network driver must do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from core.errors import Conflict, HostFault
from drivers.network.base import Network, NetworkSpec, NicSpec
from tests.contract.tools import cancelled_after, settle

MAC = "52:54:00:12:34:56"


@dataclass
class NetworkRig:
    """there: a bridge that exists. free: a bridge name that does not, and is taken away after the test.

    management: the interface or bridge that carries the management address. cidr: "" where a bridge can have none.
    """

    network: Network
    there: str
    free: str
    management: str
    cidr: str = "10.99.0.1/24"

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.cidr,) if self.cidr else ()


class NetworkContract:
    """Subclass it and give the fixture `rig`."""

    @pytest.fixture
    def rig(self) -> NetworkRig:
        pytest.fail("a driver that joins this suite gives its own rig")

    async def test_a_bridge_that_is_there_is_left_as_it_is(self, rig: NetworkRig) -> None:
        before = {bridge.name: bridge for bridge in await rig.network.bridges()}
        assert await rig.network.ensure(NetworkSpec("lan", "bridge", rig.there)) is False
        assert await rig.network.ensure(NetworkSpec("lan", "bridge", rig.there, create=True)) is False
        assert {bridge.name: bridge for bridge in await rig.network.bridges()}[rig.there] == before[rig.there]

    async def test_a_bridge_is_made_once(self, rig: NetworkRig) -> None:
        spec = NetworkSpec("new", "bridge", rig.free, rig.cidr, create=True)
        assert await rig.network.ensure(spec) is True
        assert await rig.network.ensure(spec) is False
        made = {bridge.name: bridge for bridge in await rig.network.bridges()}[rig.free]
        assert made.addresses == rig.addresses
        assert made.up

    async def test_a_missing_bridge_is_not_made_unasked(self, rig: NetworkRig) -> None:
        spec = NetworkSpec("new", "bridge", rig.free)
        with pytest.raises(HostFault):
            await rig.network.ensure(spec)
        with pytest.raises(HostFault):
            await rig.network.ensure_nic(spec, NicSpec(0, MAC))
        assert rig.free not in [bridge.name for bridge in await rig.network.bridges()]

    async def test_the_management_interface_is_never_touched(self, rig: NetworkRig) -> None:
        with pytest.raises(Conflict):
            await rig.network.ensure(NetworkSpec("bad", "bridge", rig.management, "10.99.0.1/24", create=True))

    async def test_a_nic(self, rig: NetworkRig) -> None:
        network = NetworkSpec("lan", "bridge", rig.there)
        nic = NicSpec(1, MAC, "10.99.0.7/24", "10.99.0.1", ("10.99.0.2",))
        found = await rig.network.ensure_nic(network, nic)
        assert (found.name, found.mac, found.bridge) == ("eth1", MAC, rig.there)
        assert (found.address, found.gateway, found.nameservers) == ("10.99.0.7/24", "10.99.0.1", ("10.99.0.2",))
        assert await rig.network.ensure_nic(network, nic) == found

    async def test_no_interface_carries_an_unknown_mac(self, rig: NetworkRig) -> None:
        assert await rig.network.interfaces_of([]) == []
        assert await rig.network.interfaces_of(["52:54:00:ff:ff:fe"]) == []

    async def test_by_several_at_once_and_killed(self, rig: NetworkRig) -> None:
        spec = NetworkSpec("new", "bridge", rig.free, rig.cidr, create=True)
        await cancelled_after(rig.network.ensure(spec), 0.02)
        await asyncio.gather(*(settle(lambda: rig.network.ensure(spec)) for _ in range(4)))
        assert await rig.network.ensure(spec) is False
        made = [bridge for bridge in await rig.network.bridges() if bridge.name == rig.free]
        assert [bridge.addresses for bridge in made] == [rig.addresses]
