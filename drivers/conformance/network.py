"""What every network driver must do."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from core.errors import Conflict, HostFault
from drivers.conformance.cases import Suite, not_reached, raises
from drivers.conformance.rigs import NetworkRig
from drivers.conformance.tools import cancelled_after, settle
from drivers.hosts import verbs_of
from drivers.network.base import Bridge, Network, NetworkSpec, NicSpec

OF_INSTANCES = ("veth", "tap", "vnet", "rf")  # how host-side interfaces of LXD's, libvirt's and our own VMs begin
MAC = "52:54:00:12:34:56"


CASES: Suite[NetworkRig] = Suite("network", verbs_of(Network))


def is_left(before: Bridge, now: Bridge | None) -> bool:
    """Say whether a bridge is as it was, but for the NICs of instances: those of others come and go meanwhile."""
    stays = {port for port in before.ports if not port.startswith(OF_INSTANCES)}
    return now is not None and replace(now, ports=()) == replace(before, ports=()) and stays <= set(now.ports)


@CASES.case("ensure", "bridges")
async def a_bridge_that_is_there_is_left_as_it_is(rig: NetworkRig) -> None:
    before = {bridge.name: bridge for bridge in await rig.network.bridges()}
    assert await rig.network.ensure(NetworkSpec("lan", "bridge", rig.there)) is False
    assert await rig.network.ensure(NetworkSpec("lan", "bridge", rig.there, create=True)) is False
    assert is_left(before[rig.there], {bridge.name: bridge for bridge in await rig.network.bridges()}[rig.there])


def can_clear(rig: NetworkRig) -> None:
    """End the case where what it makes could not be taken away again."""
    if not rig.free:
        not_reached("the driver's module gives no way to take a network away again")


@CASES.case("ensure", "bridges")
async def a_bridge_is_made_once(rig: NetworkRig) -> None:
    can_clear(rig)
    spec = NetworkSpec("new", "bridge", rig.free, rig.cidr, create=True)
    assert await rig.network.ensure(spec) is True
    assert await rig.network.ensure(spec) is False
    made = {bridge.name: bridge for bridge in await rig.network.bridges()}[rig.free]
    assert made.addresses == rig.addresses
    assert made.up


@CASES.case("ensure", "ensure_nic")
async def a_missing_bridge_is_not_made_unasked(rig: NetworkRig) -> None:
    absent = rig.free or "rft-none"
    spec = NetworkSpec("new", "bridge", absent)
    with raises(HostFault):
        await rig.network.ensure(spec)
    with raises(HostFault):
        await rig.network.ensure_nic(spec, NicSpec(0, MAC))
    assert absent not in [bridge.name for bridge in await rig.network.bridges()]


@CASES.case("ensure")
async def the_management_interface_is_never_touched(rig: NetworkRig) -> None:
    if not rig.management:
        not_reached("it is not known which interface carries the management address")
    with raises(Conflict):
        await rig.network.ensure(NetworkSpec("bad", "bridge", rig.management, "10.99.0.1/24", create=True))


@CASES.case("ensure_nic")
async def a_nic(rig: NetworkRig) -> None:
    network = NetworkSpec("lan", "bridge", rig.there)
    nic = NicSpec(1, MAC, "10.99.0.7/24", "10.99.0.1", ("10.99.0.2",))
    found = await rig.network.ensure_nic(network, nic)
    assert (found.name, found.mac, found.bridge) == ("eth1", MAC, rig.there)
    assert (found.address, found.gateway, found.nameservers) == ("10.99.0.7/24", "10.99.0.1", ("10.99.0.2",))
    assert await rig.network.ensure_nic(network, nic) == found


@CASES.case("interfaces_of")
async def no_interface_carries_an_unknown_mac(rig: NetworkRig) -> None:
    assert await rig.network.interfaces_of([]) == []
    assert await rig.network.interfaces_of(["52:54:00:ff:ff:fe"]) == []


@CASES.case("ensure")
async def by_several_at_once_and_killed(rig: NetworkRig) -> None:
    can_clear(rig)
    spec = NetworkSpec("new", "bridge", rig.free, rig.cidr, create=True)
    await cancelled_after(rig.network.ensure(spec), 0.02)
    await asyncio.gather(*(settle(lambda: rig.network.ensure(spec)) for _ in range(4)))
    assert await rig.network.ensure(spec) is False
    made = [bridge for bridge in await rig.network.bridges() if bridge.name == rig.free]
    assert [bridge.addresses for bridge in made] == [rig.addresses]
