"""The Redfish driver over real HTTP, with the lab's BMC in front of machines that are a word in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from core.errors import CredentialRejected, HostFault, Invalid, Unreachable
from core.settings import DriverSettings
from core.states import MachinePower
from drivers.baremetal.base import BareMetal, BmcEndpoint, PowerChange
from drivers.bmcs import connect
from drivers.conformance.baremetal import BareMetalRig
from lab.bmc import Rack, server
from lab.bmc_process import USER
from tests.contract.suites import BareMetalContract

SETTINGS = DriverSettings(connect_timeout_s=2, command_timeout_s=3)


@dataclass
class Machines:
    """boots: by name; order_s: how long an order takes; stuck: orders are taken and never carried out."""

    on: set[str] = field(default_factory=lambda: {"h1", "h2"})
    boots: dict[str, int] = field(default_factory=lambda: {"h1": 1, "h2": 1})
    order_s: float = 0.02
    stuck: bool = False

    def do(self, verb: str, name: str) -> None:
        time.sleep(self.order_s)
        if not self.stuck and verb == "crash":
            self.on.discard(name)
        elif not self.stuck and name not in self.on:
            self.on.add(name)
            self.boots[name] += 1

    def rack(self) -> Rack:
        return Rack(lambda: list(self.boots), lambda name: name in self.on, self.do, "secret")


@pytest.fixture
def machines() -> Machines:
    return Machines()


@pytest.fixture
def rack(machines: Machines) -> Rack:
    return machines.rack()


@pytest.fixture
def address(rack: Rack) -> Iterator[str]:
    serving = server(rack, 0)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    serving.server_close()
    thread.join()
    rack.orders.shutdown()


@pytest.fixture
def endpoint(address: str) -> BmcEndpoint:
    return BmcEndpoint("h1", address, USER, password="secret", system_id="h1")


@pytest.fixture
async def bmc(endpoint: BmcEndpoint) -> AsyncIterator[BareMetal]:
    found = await connect(endpoint, SETTINGS)
    yield found
    await found.close()


class TestRedfish(BareMetalContract):
    @pytest.fixture
    async def rig(self, bmc: BareMetal, endpoint: BmcEndpoint, machines: Machines) -> AsyncIterator[BareMetalRig]:
        async def boots() -> int:
            return machines.boots["h1"]

        wrong = await connect(replace(endpoint, password="guess"), SETTINGS)
        nobody = await connect(replace(endpoint, address="http://127.0.0.1:1"), SETTINGS)
        yield BareMetalRig(bmc, boots, asks=False, wrong=wrong, nobody=nobody)
        await wrong.close()
        await nobody.close()


async def test_other_machines_are_left_alone(bmc: BareMetal, machines: Machines) -> None:
    await bmc.set_power(PowerChange.FORCE_OFF)
    assert machines.on == {"h2"}


async def test_an_order_that_is_not_carried_out_is_told(bmc: BareMetal, machines: Machines) -> None:
    machines.stuck = True
    with pytest.raises(HostFault) as caught:
        await bmc.set_power(PowerChange.FORCE_OFF, timeout_s=0.2)
    assert caught.value.evidence == {"wanted": "force_off", "seen": "on"}


async def test_a_service_that_hangs_is_unreachable_in_time(bmc: BareMetal, rack: Rack) -> None:
    hung = threading.Event()
    rack.is_on = lambda name: not hung.wait(20)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        await bmc.power()
    assert time.monotonic() - began < 10
    hung.set()


async def test_a_port_where_nobody_listens_is_told_in_the_systems_words(endpoint: BmcEndpoint) -> None:
    nobody = await connect(replace(endpoint, address="https://127.0.0.1:1"), SETTINGS)
    with pytest.raises(Unreachable) as caught:
        await nobody.power()
    assert caught.value.message.endswith("no answer (Connection refused)")
    assert "127.0.0.1" in caught.value.evidence["seen"]
    await nobody.close()


async def test_a_session_that_ran_out_is_made_anew(bmc: BareMetal, rack: Rack) -> None:
    assert await bmc.power() is MachinePower.ON
    rack.tokens.clear()
    assert await bmc.power() is MachinePower.ON
    assert len(rack.tokens) == 1


async def test_it_logs_out(bmc: BareMetal, rack: Rack) -> None:
    await bmc.power()
    assert len(rack.tokens) == 1
    await bmc.close()
    end = time.monotonic() + 5
    while rack.tokens and time.monotonic() < end:
        await asyncio.sleep(0.01)
    assert rack.tokens == {}


async def test_a_system_that_is_not_there_is_told(endpoint: BmcEndpoint) -> None:
    for system_id in ("h9", ""):  # "": the only one, and there are two
        bmc = await connect(replace(endpoint, system_id=system_id), SETTINGS)
        with pytest.raises(HostFault):
            await bmc.power()
        await bmc.close()


async def test_the_password_stands_in_a_file(endpoint: BmcEndpoint, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    bmc = await connect(replace(endpoint, password="", password_file=file), SETTINGS)
    assert await bmc.power() is MachinePower.ON
    await bmc.close()
    bmc = await connect(replace(endpoint, password_file=tmp_path / "none"), SETTINGS)
    with pytest.raises(CredentialRejected):
        await bmc.power()
    await bmc.close()
    assert "secret" not in repr(endpoint)


async def test_an_address_that_is_none() -> None:
    with pytest.raises(Invalid):
        await connect(BmcEndpoint("h1", "10.0.0.1"), SETTINGS)
