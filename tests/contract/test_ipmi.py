"""The IPMI driver: ipmitool against pyghmi's pretended BMC, over real UDP; what ipmitool prints."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from core.errors import CredentialRejected, HostFault, Invalid, RackflowError, Unreachable, Unsupported
from core.settings import DriverSettings
from drivers.baremetal.base import BareMetal, BmcEndpoint, PowerChange
from drivers.baremetal.facets import BmcEvent, BootDevice, Sensor, facets
from drivers.baremetal.ipmi import IpmiBmc, parse_events, parse_sensors, translated
from drivers.bmcs import connect
from drivers.conformance.baremetal import BareMetalRig
from lab.baremetal.services import FIX, VENV
from tests.contract.suites import BareMetalContract

SETTINGS = DriverSettings(connect_timeout_s=4, command_timeout_s=10)
FAKE = VENV / "bin" / "fakebmc"


@pytest.fixture(scope="module")
def bmc_port() -> Iterator[int]:
    if not FAKE.exists() or shutil.which("ipmitool") is None:
        pytest.skip(f"no ipmitool, or no pretended BMC: apt-get install ipmitool; {FIX}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    quiet = subprocess.DEVNULL
    made = subprocess.Popen([FAKE, "--port", str(port)], stdin=quiet, stdout=quiet, stderr=quiet)
    yield port
    made.kill()
    made.wait()


@pytest.fixture
def where(bmc_port: int) -> BmcEndpoint:
    return BmcEndpoint("h1", f"ipmi://127.0.0.1:{bmc_port}", "admin", password="password")


class TestIpmi(BareMetalContract):
    SLOW = (
        "test_a_bmc_that_does_not_answer", "test_killed_in_the_middle_and_run_again",
    )  # a second and more for each order  # fmt: skip

    @pytest.fixture
    async def rig(self, where: BmcEndpoint) -> AsyncIterator[BareMetalRig]:
        given = (where, replace(where, password="guess"), replace(where, address="ipmi://127.0.0.1:1"))
        bmc, wrong, nobody = [await connect(one, SETTINGS) for one in given]
        await self.woken(bmc)
        await bmc.set_power(PowerChange.ON)
        yield BareMetalRig(bmc, None, wrong=wrong, nobody=nobody, delays_s=(0.02,))
        for one in (bmc, wrong, nobody):
            await one.close()

    async def woken(self, bmc: BareMetal) -> None:
        for _ in range(5):  # the pretended BMC may not listen yet
            try:
                await bmc.power()
            except Unreachable:
                continue
            return


async def test_what_it_can_do(where: BmcEndpoint) -> None:
    bmc = IpmiBmc(where, SETTINGS)
    assert facets(bmc) == {"boot-once", "sensors", "event-log", "identify"}
    assert await bmc.boot_once(BootDevice.NETWORK)


async def test_the_password_is_in_no_command_line(where: BmcEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    bmc = IpmiBmc(where, SETTINGS)
    real = bmc._process

    async def spy(argv):  # type: ignore[no-untyped-def]
        seen.extend(argv)
        return await real(argv)

    monkeypatch.setattr(bmc, "_process", spy)
    await bmc.power()
    assert "ipmitool" in seen
    assert "password" not in seen


async def test_an_address_that_is_none() -> None:
    with pytest.raises(Invalid):
        await connect(BmcEndpoint("h1", "ipmi://"), SETTINGS)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("> Error: Received an Unexpected Open Session Response status; RAKP 2 HMAC is invalid\n", CredentialRejected),
        ("Error: Unable to establish IPMI v2 / RMCP+ session", Unreachable),
        ("Error sending Chassis Identify: Invalid command", Unsupported),
        ("something else", HostFault), ("", HostFault),
    ],
)  # fmt: skip
def test_what_it_complains_of(said: str, kind: type[RackflowError]) -> None:
    found = translated(said, BmcEndpoint("h1", "ipmi://10.0.0.1"), "chassis power status")
    assert type(found) is kind
    assert found.subject == "host/h1"


def test_sensors_as_they_are_printed() -> None:
    text = (
        "CPU Temp         | 41.000     | degrees C  | ok    | 0.000 | 0.000 | 0.000 | 90.000 | 95.000 | 95.000\n"
        "FAN1             | na         | RPM        | na    | 300.000 | 500.000 | na | na | na | na\n"
        "PS1 Status       | 0x1        | discrete   | 0x0100| na | na | na | na | na | na\n"
        "12V              | 10.100     | Volts      | cr    | na | na | na | na | na | na\n"
    )
    assert list(parse_sensors(text)) == [
        Sensor("CPU Temp", 41.0, "celsius", "OK"), Sensor("FAN1", None, "rpm"),
        Sensor("12V", 10.1, "volts", "Critical"),
    ]  # fmt: skip


def test_events_as_they_are_printed() -> None:
    text = (
        "   1 | 11/26/2026 | 10:00:00 UTC | Memory #0x02 | Uncorrectable ECC | Asserted\n"
        "   2 |  Pre-Init  |0000000011| Power Supply #0x51 | Failure detected | Asserted\n"
    )
    assert list(parse_events(text)) == [
        BmcEvent("1", datetime(2026, 11, 26, 10, tzinfo=UTC), "", "Memory #0x02 | Uncorrectable ECC | Asserted"),
        BmcEvent("2", None, "", "Power Supply #0x51 | Failure detected | Asserted"),
    ]
