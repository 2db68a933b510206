"""The kit finds what is wrong: every seeded bug of the fake makes a case of its family fail, and nothing else does."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from core.ids import new_id
from core.settings import DriverSettings
from daemon.driver_hosts import small_image
from drivers import bmcs
from drivers.baremetal.base import BmcEndpoint
from drivers.conformance import baremetal, carrier
from drivers.conformance.baremetal import BareMetalRig
from drivers.conformance.carrier import CarrierRig
from drivers.conformance.cases import Case, Suite
from drivers.conformance.on_host import HostRigs, Where
from drivers.conformance.report import Outcome, Verdict
from drivers.conformance.run import chosen, run
from drivers.fake_files import pack_memory
from drivers.fake_world import world
from drivers.storage.base import SeedSpec, VolumeSpec
from drivers.transport.base import Endpoint
from tests.contract.seeds import BUGS, Bug

STORE = "/var/lib/rackflow/datastore"
ELSEWHERE = {"carrier": carrier.CASES, "baremetal": baremetal.CASES}  # suites that are not run on hosts as such
LIMIT_S, SOON_S = 60.0, 2.0  # for a case; where it is to be seen that one does not end


class Rigs(HostRigs):
    """Those of hosts, and of what is no part of a host."""

    @asynccontextmanager
    async def carrier(self) -> AsyncIterator[CarrierRig]:
        here, there = await self.host(), await self.host(self.where.other)
        spec = VolumeSpec(new_id(), "root", 16)
        for host in (here, there):
            await host.storage(STORE).prepare()
        await here.storage(STORE).ensure_volume(spec)
        await here.storage(STORE).ensure_seed(SeedSpec(spec.instance_id, "m", "u", "n"))
        await here.transport.put(pack_memory("thought", {}), here.storage(STORE).state_path(spec.instance_id))
        yield CarrierRig(here.storage(STORE).carrier(), there.storage(STORE).carrier(), spec.instance_id)

    @asynccontextmanager
    async def baremetal(self) -> AsyncIterator[BareMetalRig]:
        names = [f"{what}-{new_id()[-6:]}" for what in ("good", "silent", "locked")]
        good, silent, locked = map(world.host, names)
        silent.bmc_answers, locked.bmc_password = False, "right"

        async def boots() -> int:
            return good.boots

        bmc, nobody, wrong = [await bmcs.connect(BmcEndpoint(n, "fake://"), DriverSettings()) for n in names]
        yield BareMetalRig(bmc, boots, nobody=nobody, wrong=wrong)


@pytest.fixture
async def rigs(tmp_path: Path) -> AsyncIterator[Rigs]:
    world.reset()
    ends = [Endpoint(name, "192.0.2.1") for name in ("seeded-1", "seeded-2")]
    image = small_image(tmp_path)
    found = Rigs(Where("fake", ends[0], DriverSettings(), bridge="br0", store_image=image, other=ends[1]))
    yield found
    await found.close()
    world.reset()


def cases_of(family: str) -> list[tuple[Suite[Any], Case[Any]]]:
    """Return the cases of a family; each gets the rig of that name."""
    if family not in ELSEWHERE:
        return chosen([family])
    suite: Suite[Any] = Suite(family, ELSEWHERE[family].verbs)
    return [(suite, case) for case in ELSEWHERE[family].cases]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.title.replace(" ", "-"))
async def test_a_seeded_bug_is_found(rigs: Rigs, bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bug.owner, bug.verb, bug.make(getattr(bug.owner, bug.verb)))
    told: list[Outcome] = []
    await run(rigs, cases_of(bug.family), told.append, first_failure=True, limit_s=SOON_S if bug.hangs else LIMIT_S)
    assert told[-1].verdict is Verdict.FAILED, f"{len(told)} cases did not see it"
    assert ("did not end" in told[-1].reason) == bug.hangs, told[-1].reason
    print(told[-1].case, "|", told[-1].reason)


def test_the_bugs_are_many_and_of_all_families() -> None:
    counts = Counter(bug.family for bug in BUGS)
    assert set(counts) == {"hypervisor", "storage", "carrier", "network", "transport", "baremetal"}
    assert min(counts.values()) >= 7, counts


@pytest.mark.parametrize("family", ["carrier", "baremetal"])
async def test_without_a_bug_all_is_well(rigs: Rigs, family: str) -> None:
    told: list[Outcome] = []
    await run(rigs, cases_of(family), told.append)
    assert {one.verdict for one in told} == {Verdict.PROVEN}, told
