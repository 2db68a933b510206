"""What docs/drivers.md says of drivers is what the kit proves; here for those that need no hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.settings import DriverSettings
from daemon.driver_hosts import small_image
from drivers.conformance import kept
from drivers.conformance.on_host import Where
from drivers.conformance.report import markdown
from drivers.conformance.run import SUITES
from drivers.fake_world import world
from drivers.registry import OWN
from drivers.transport.base import Endpoint
from tests.contract.firecracker import BRIDGE, REAL, micro_vms
from tests.proven import compare, kit
from tests.vcsim import HOSTS, SETTINGS, vcsim

PAGE = Path(__file__).resolve().parents[2] / "docs" / "drivers.md"
SHIM_SAYS = "the shim of its API, QEMU emulating"
BEGIN, END = "<!-- the table: rackflow driver page -->\n", "<!-- its end -->\n"


async def test_the_fake(tmp_path: Path) -> None:
    world.reset()
    here, other = [Endpoint(name, "192.0.2.1") for name in ("proven-1", "proven-2")]
    where = Where("fake", here, DriverSettings(), bridge="br0", store_image=small_image(tmp_path), other=other)
    compare(await kit(where, "the simulation"))
    assert world.host("proven-1").instances == {}
    assert world.harm == []
    world.reset()


@pytest.mark.slow  # test_esxi.py runs the same cases, and both modes
async def test_esxi(tmp_path: Path) -> None:
    with vcsim(tmp_path, place=HOSTS[0]) as sim:
        here, other = [sim.endpoint(f"e{n}", place) for n, place in enumerate(HOSTS)]
        where = Where("esxi", here, SETTINGS, store_image=small_image(tmp_path), other=other)
        compare(await kit(where, "vcsim 0.51.0, a simulator: two hosts of a vCenter"))


@pytest.mark.slow  # test_firecracker.py runs the same cases
@pytest.mark.skipif(bool(REAL), reason="the shipped result is the shim's")
async def test_firecracker(tmp_path: Path) -> None:
    async with micro_vms(boot=False) as vms:
        at = vms.place
        settings = DriverSettings(
            firecracker=at.program, microvms=at.state, microvms_run=at.run, kernels=at.kernels,
            datastore_path=f"{vms.folder}/kit",
        )  # fmt: skip
        here, image = vms.transport.endpoint, small_image(tmp_path)
        compare(await kit(Where("firecracker", here, settings, bridge=BRIDGE, store_image=image), SHIM_SAYS))


def test_the_page_is_made_of_the_shipped_results() -> None:
    found = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert found == markdown(kept.shipped()), "put what `rackflow driver page` prints between the two comments"


def test_shipped_results_know_all_cases_of_the_kit() -> None:
    """Cases that came, went or got another name since make a result stale; live ones are not run again each time."""
    wanted = {(suite.family, case.title) for suite in SUITES for case in suite.cases}
    for report in kept.shipped():
        assert {(one.family, one.case) for one in report.outcomes} == wanted, f"run the kit on {report.driver} again"
    assert {report.driver for report in kept.shipped()} <= set(OWN)


def test_every_verb_of_a_contract_is_proven_by_some_case() -> None:
    beside = {"close", "endpoint", "forward", "cut", "is_alive"}  # what all others go through, or their drivers' suites
    for suite in SUITES:
        proved = {verb for one in SUITES if one.family == suite.family for case in one.cases for verb in case.proves}
        assert set(suite.verbs) - proved <= beside, suite.family
