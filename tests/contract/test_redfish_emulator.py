"""The Redfish driver against sushy-tools, a second opinion on the protocol beside the lab's own BMC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from drivers.baremetal.base import BareMetal, PowerChange
from drivers.baremetal.facets import FACETS, BootDevice, facets
from drivers.baremetal.redfish import RedfishBmc
from drivers.baremetal.redfish_facets import event
from drivers.conformance.baremetal import BareMetalRig
from lab.baremetal.services import Services
from tests.contract.conftest import MACHINES
from tests.contract.suites import BareMetalContract
from tests.services import SETTINGS, endpoint

MACHINE = MACHINES[-1]


@pytest.fixture
async def bmc(services: Services) -> AsyncIterator[RedfishBmc]:
    found = RedfishBmc(endpoint(services, "bmc", system_id=MACHINE.uuid), SETTINGS)
    yield found
    await found.close()


class TestRedfishEmulator(BareMetalContract):
    SLOW = (
        "test_killed_in_the_middle_and_run_again", "test_by_several_at_once", "test_a_reset_is_made_each_time",
        "test_a_reset_of_what_is_off_puts_it_on", "test_a_polite_shutdown",
    )  # a second and more for each order  # fmt: skip

    @pytest.fixture
    async def rig(self, services: Services, bmc: RedfishBmc) -> AsyncIterator[BareMetalRig]:
        await bmc.set_power(PowerChange.ON)
        where = endpoint(services, "bmc", system_id=MACHINE.uuid)
        given = (replace(where, password="guess"), replace(where, address="http://127.0.0.1:1"))
        others: list[BareMetal] = [RedfishBmc(one, SETTINGS) for one in given]
        yield BareMetalRig(bmc, None, wrong=others[0], nobody=others[1], delays_s=(0.05,))
        for one in others:
            await one.close()


def test_it_can_do_all_but_write_disks(bmc: RedfishBmc) -> None:
    assert set(FACETS) - facets(bmc) == {"erase", "deploy"}


async def test_it_boots_once_from_the_network(bmc: RedfishBmc) -> None:
    assert await bmc.boot_once(BootDevice.NETWORK)


async def test_the_inventory(bmc: RedfishBmc) -> None:
    found = await bmc.inspect()
    assert found.manufacturer == "Sushy Emulator"
    assert [nic.mac for nic in found.nics] == [MACHINE.mac]


async def test_the_sensors(bmc: RedfishBmc) -> None:
    found = {sensor.name: sensor for sensor in await bmc.sensors()}
    assert (found["CPU Temp"].value, found["CPU Temp"].unit, found["CPU Temp"].health) == (41, "celsius", "OK")


async def test_the_led(bmc: RedfishBmc) -> None:
    await bmc.identify(False)
    assert await bmc.identify(True)
    assert not await bmc.identify(True)
    assert await bmc.identify(False)


async def test_a_cd_goes_in_and_out(bmc: RedfishBmc, services: Services) -> None:
    image = f"{services.url('bmc')}/redfish/v1/"  # any file will do
    assert await bmc.media() == ""
    assert await bmc.insert_media(image)
    assert not await bmc.insert_media(image)
    assert await bmc.media() == image
    assert await bmc.eject_media()
    assert not await bmc.eject_media()


async def test_a_bmc_without_an_event_log(bmc: RedfishBmc) -> None:
    assert await bmc.events() == ()


def test_an_entry_of_the_event_log() -> None:
    entry = {"Id": "7", "Created": "2026-11-26T10:00:00Z", "Severity": "Critical", "Message": "DIMM A1 failed"}
    found = event(entry)
    assert (found.severity, found.message) == ("Critical", "DIMM A1 failed")
    assert found.at == datetime(2026, 11, 26, 10, tzinfo=UTC)
    assert event({**entry, "Created": "0000-00-00"}).at is None
