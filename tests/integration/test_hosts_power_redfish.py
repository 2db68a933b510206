"""Sleep and wake by Redfish, against sushy-tools: a second opinion on the power. The host itself is simulated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.states import HostState, MachinePower, OperationState, Verb
from drivers.baremetal.redfish import RedfishBmc
from lab.baremetal.services import FIX, USER, Machine, Services, is_installed
from tests.integration.line import Line
from tests.integration.pump import host_of
from tests.services import SETTINGS, endpoint

MACHINE = Machine("m1", "11111111-2222-4333-8444-000000000001", "52:54:00:bb:00:01", on=True)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Only the emulated BMC, with one machine."""
    if not is_installed():
        pytest.skip(f"no sushy-tools here: {FIX}")
    found = Services(tmp_path / "services", [MACHINE])
    try:
        found.start("bmc")
        yield found
    finally:
        found.stop()


async def test_a_host_sleeps_and_wakes_by_redfish(line: Line, services: Services, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(services.password)
    bmc = {
        "address": services.url("bmc"), "user": USER, "password_file": str(password), "system": MACHINE.uuid,
        "verify_tls": False,
    }  # fmt: skip
    await line.run(Verb.ENROLL, {"hosts": [{"name": "f2", "address": "10.99.0.3", "driver": "fake", "bmc": bmc}]})
    direct = RedfishBmc(endpoint(services, "bmc", system_id=MACHINE.uuid), SETTINGS)
    try:
        for verb, state, power in (
            (Verb.SLEEP, HostState.ASLEEP, MachinePower.OFF), (Verb.WAKE, HostState.READY, MachinePower.ON),
        ):  # fmt: skip
            (op,) = await line.run(verb, {"hosts": ["f2"]})
            assert (op.state, op.error) == (OperationState.DONE, None)
            assert (host_of(line, "f2").state, await direct.power()) == (state, power)
    finally:
        await direct.close()
