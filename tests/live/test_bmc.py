"""The lab's BMCs: what Redfish orders happens to real hosts, whatever runs on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from blueprints.host import HostSpec
from core.settings import DriverSettings
from core.states import MachinePower
from drivers.baremetal.base import BareMetal, BmcEndpoint, PowerChange
from drivers.bmcs import connect
from drivers.conformance.baremetal import BareMetalRig
from tests.contract.suites import BareMetalContract
from tests.labs import Lab

SETTINGS = DriverSettings(connect_timeout_s=2)


@pytest.fixture
def victim(lab: Lab) -> str:
    """The last host; other tests need the first ones."""
    return lab.hosts()[-1]


@pytest.fixture
def endpoint(lab: Lab, victim: str) -> BmcEndpoint:
    """Return what lab.yaml says of its BMC."""
    hosts = [HostSpec.model_validate(host) for host in yaml.safe_load(lab.blueprint.read_text())["hosts"]]
    (bmc,) = [host.bmc for host in hosts if host.name == victim]
    assert bmc is not None
    assert bmc.password_file is not None
    return BmcEndpoint(victim, bmc.address, bmc.user, Path(bmc.password_file), "", bmc.verify_tls, bmc.system)


@pytest.fixture
async def bmc(lab: Lab, endpoint: BmcEndpoint, victim: str) -> AsyncIterator[BareMetal]:
    await asyncio.to_thread(lab.call, "start", victim)
    found = await connect(endpoint, SETTINGS)
    yield found
    await found.close()
    await asyncio.to_thread(lab.call, "start", victim)


class TestLabBmc(BareMetalContract):
    @pytest.fixture
    async def rig(
        self, lab: Lab, bmc: BareMetal, endpoint: BmcEndpoint, victim: str
    ) -> AsyncIterator[BareMetalRig]:
        pids: list[int] = []

        async def boots() -> int:
            """Count the first processes that were seen."""
            rows = await asyncio.to_thread(lab.status)
            pids.extend({row["pid"] for row in rows if row["name"] == victim and row["pid"]} - set(pids))
            return len(pids)

        wrong = await connect(replace(endpoint, password_file=None, password="guess"), SETTINGS)
        nobody = await connect(replace(endpoint, address="http://127.0.0.1:1"), SETTINGS)
        yield BareMetalRig(bmc, boots, asks=False, wrong=wrong, nobody=nobody, delays_s=(0.05, 0.5))
        await wrong.close()
        await nobody.close()


async def test_what_runs_dies_and_the_disk_stays(lab: Lab, bmc: BareMetal, victim: str) -> None:
    def on_host(command: str) -> str:
        return lab.run(victim, command, check=False)

    await asyncio.to_thread(on_host, "echo kept > /etc/note; sync; sleep 1000 > /dev/null 2>&1 &")
    assert await asyncio.to_thread(on_host, "pgrep -x sleep") != ""
    assert await bmc.set_power(PowerChange.FORCE_OFF) is True
    assert await asyncio.to_thread(on_host, "hostname") == ""
    assert await bmc.power() is MachinePower.OFF
    others = [row["state"] for row in await asyncio.to_thread(lab.status) if row["name"] != victim]
    assert set(others) == {"up"}
    assert await bmc.set_power(PowerChange.ON) is True
    await asyncio.to_thread(lab.call, "start", victim)  # waits for its daemons
    async with asyncio.timeout(30):  # a busy machine may not answer the first time
        while not (seen := await asyncio.to_thread(on_host, "cat /etc/note; pgrep -x sleep")):
            await asyncio.sleep(0.5)
    assert seen.split() == ["kept"]
