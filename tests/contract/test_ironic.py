"""Machines behind a real Ironic: the suite on fake hardware, enrollment, its own inspection, and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.errors import Conflict, CredentialRejected, HostFault, NotFound, Unreachable, Unsupported
from core.states import MachinePower
from drivers.baremetal.base import PowerChange
from drivers.baremetal.facets import BootDevice, Deployment, facets
from drivers.baremetal.inventory import Disk
from drivers.baremetal.ironic import Ironic, NodeSpec
from drivers.baremetal.ironic_node import IronicNode
from drivers.bmcs import connect
from drivers.conformance.baremetal import BareMetalRig
from lab.baremetal.services import USER, Services
from tests.contract.conftest import MACHINES
from tests.contract.suites import BareMetalContract
from tests.services import SETTINGS, canned, endpoint, fake_node, post, post_until_taken

DEPLOYMENT = Deployment("http://images/a.raw", "0" * 64, Disk("/dev/sda", 2**32, serial="S1"), b"a drive")
CONTINUE = "/v1/continue_inspection"


@pytest.fixture
async def ironic(services: Services) -> AsyncIterator[Ironic]:
    found = Ironic(endpoint(services, "ironic"), SETTINGS)
    yield found
    await found.close()


class TestIronicNode(BareMetalContract):
    SLOW = (
        "test_killed_in_the_middle_and_run_again", "test_by_several_at_once",
    )  # a second and more for each order  # fmt: skip

    @pytest.fixture
    async def rig(self, services: Services, ironic: Ironic) -> AsyncIterator[BareMetalRig]:
        name, _ = await fake_node(ironic)
        node = endpoint(services, "ironic", address=f"ironic+{services.url('ironic')}", system_id=name)
        given = (node, replace(node, password="guess"), replace(node, address="ironic+http://127.0.0.1:1"))
        bmc, wrong, nobody = [await connect(one, SETTINGS) for one in given]
        await bmc.set_power(PowerChange.ON)
        yield BareMetalRig(bmc, None, wrong=wrong, nobody=nobody, delays_s=(0.0, 0.05))
        for one in (bmc, wrong, nobody):
            await one.close()


async def test_what_it_can_do(ironic: Ironic) -> None:
    name, _ = await fake_node(ironic)
    node = IronicNode(ironic, name)
    assert facets(node) == {"boot-once", "inspect", "erase", "deploy"}
    assert await node.boot_once(BootDevice.NETWORK)


async def test_a_node_that_cannot_be_erased_stays_usable(ironic: Ironic) -> None:
    """Fake hardware has no step that erases; the agent has."""
    name, _ = await fake_node(ironic)
    node = IronicNode(ironic, name)
    with pytest.raises(Unsupported, match="no way to erase"):
        await node.erase(timeout_s=60)
    await ironic.reached(name, "manageable", timeout_s=30)
    assert not (await ironic.node(name)).maintenance
    await ironic.provision(name, "provide", "available", timeout_s=60)
    with pytest.raises(Conflict, match="is available") as caught:
        await node.erase()
    assert "take it out of use" in caught.value.fix


async def test_a_disk_is_written_and_written_again(ironic: Ironic) -> None:
    """Fake hardware goes through Ironic's states; that something is written is seen in tests/live/test_baremetal.py."""
    name, _ = await fake_node(ironic)
    node = IronicNode(ironic, name)
    for image in ("http://images/a.raw", "http://images/b.img"):
        await node.deploy(replace(DEPLOYMENT, image=image), timeout_s=90)
        assert (await node.node()).provision == "active"
        kept = await ironic.call("reading", lambda client: client.get_node(name))
        assert kept.properties["root_device"] == {"serial": "S1"}
        assert kept.instance_info["image_source"] == image
        assert kept.instance_info.get("image_disk_format") == {"http://images/a.raw": "raw"}.get(image)
    with pytest.raises(Conflict, match="is active"):
        await node.erase()
    assert await node.take_back()
    assert not await node.take_back()
    assert (await node.node()).provision == "manageable"


@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.5])
async def test_what_a_killed_worker_began_to_take_back_the_next_one_does(
    ironic: Ironic, services: Services, after_s: float
) -> None:
    """It has no clean-up of its own, so cut off at an await it leaves what a kill leaves."""
    name, _ = await fake_node(ironic)
    node = IronicNode(ironic, name)
    await node.deploy(DEPLOYMENT, timeout_s=90)
    begun = asyncio.create_task(node.take_back())
    await asyncio.sleep(after_s)
    begun.cancel()
    await asyncio.gather(begun, return_exceptions=True)
    following = Ironic(endpoint(services, "ironic"), SETTINGS)
    await IronicNode(following, name).take_back(timeout_s=90)
    found = await following.node(name)
    await following.close()
    assert (found.provision, found.provision_target, found.maintenance) == ("manageable", None, False)


async def test_a_disk_that_cannot_be_written_leaves_the_node_manageable(ironic: Ironic) -> None:
    name, _ = await fake_node(ironic)
    node = IronicNode(ironic, name)
    await ironic.call("spoiling", lambda client: client.update_node(name, deploy_interface="direct"))
    with pytest.raises(HostFault, match=r"deploy failed, not active: .*image href") as caught:
        await node.deploy(replace(DEPLOYMENT, image="http://127.0.0.1:9/a.raw"), timeout_s=60)
    assert "can reach the image" in caught.value.fix
    found = await node.node()
    assert (found.provision, found.maintenance) == ("manageable", False)


async def test_enrollment_is_made_once(ironic: Ironic) -> None:
    spec = NodeSpec("once", "fake-hardware", macs=["52:54:00:cc:00:01"])
    assert await ironic.enroll(spec)
    assert not await ironic.enroll(spec)
    assert await ironic.enroll(replace(spec, macs=["52:54:00:CC:00:01", "52:54:00:cc:00:02"]))
    assert (await ironic.node("once")).provision == "manageable"
    assert await ironic.forget("once")
    assert not await ironic.forget("once")
    with pytest.raises(NotFound):
        await ironic.node("once")


async def test_two_machines_with_the_same_mac(ironic: Ironic) -> None:
    _, mac = await fake_node(ironic)
    with pytest.raises(Conflict, match=mac):
        await ironic.enroll(NodeSpec("twin", "fake-hardware", macs=[mac]))
    assert await ironic.forget("twin")


async def test_a_machine_whose_bmc_speaks_redfish(
    ironic: Ironic, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    info = {
        "redfish_address": services.url("bmc"), "redfish_username": USER, "redfish_password": services.password,
        "redfish_system_id": f"/redfish/v1/Systems/{MACHINES[0].uuid}",
    }  # fmt: skip
    spec = NodeSpec("redfish-1", "redfish", info, [MACHINES[0].mac])
    assert await ironic.enroll(spec)
    node = IronicNode(ironic, "redfish-1")
    assert await node.power() is MachinePower.ON
    assert await node.set_power(PowerChange.FORCE_OFF)
    assert await node.power() is MachinePower.OFF
    assert services.password not in caplog.text
    assert services.password not in repr(spec)


async def test_a_wrong_password_of_the_bmc(ironic: Ironic, services: Services) -> None:
    info = {
        "redfish_address": services.url("bmc"), "redfish_username": USER, "redfish_password": "guess",
        "redfish_system_id": f"/redfish/v1/Systems/{MACHINES[1].uuid}",
    }  # fmt: skip
    with pytest.raises(HostFault) as caught:
        await ironic.enroll(NodeSpec("redfish-2", "redfish", info))
    assert caught.value.evidence["seen"] == "enroll"
    assert "guess" not in str(caught.value.to_dict())


async def test_it_inspects_itself(ironic: Ironic, services: Services) -> None:
    name, mac = await fake_node(ironic, inspect_interface="agent")
    node = IronicNode(ironic, name)
    found, _ = await asyncio.gather(
        node.inspect(timeout_s=60), post_until_taken(services.url("ironic") + CONTINUE, canned(mac))
    )
    assert (found.cpu.count, found.memory_mib, found.nics[0].mac) == (2, 512, mac)
    assert found.disks[0].size_bytes == 20 * 2**30
    assert found.pci
    assert (await node.node()).provision == "manageable"


async def test_a_ramdisk_that_never_answers(ironic: Ironic, services: Services) -> None:
    name, mac = await fake_node(ironic, inspect_interface="agent")
    node = IronicNode(ironic, name)
    with pytest.raises(HostFault, match="did not get there within 3 s"):
        await node.inspect(timeout_s=3)
    failed = await ironic_settles(node)
    assert failed == "inspect failed"
    assert await post(services.url("ironic") + CONTINUE, canned(mac)) >= 400


async def ironic_settles(node: IronicNode) -> str:
    for _ in range(60):
        found = await node.node()
        if found.provision not in ("inspecting", "inspect wait"):
            return found.provision
        await asyncio.sleep(0.25)
    return found.provision


async def test_an_inspection_from_a_state_that_does_not_allow_it(ironic: Ironic) -> None:
    name, _ = await fake_node(ironic, inspect_interface="agent")
    await ironic.provision(name, "provide", "available", timeout_s=30)
    with pytest.raises(Conflict, match="available"):
        await IronicNode(ironic, name).inspect()


async def test_no_such_node_no_password_no_service(ironic: Ironic, services: Services) -> None:
    with pytest.raises(NotFound):
        await IronicNode(ironic, "nobody").power()
    wrong = Ironic(endpoint(services, "ironic", password="guess"), SETTINGS)
    with pytest.raises(CredentialRejected):
        await wrong.node("x")
    nobody = Ironic(endpoint(services, "ironic", address="http://127.0.0.1:1"), SETTINGS)
    with pytest.raises(Unreachable):
        await nobody.node("x")
    await asyncio.gather(wrong.close(), nobody.close())
