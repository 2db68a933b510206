"""The kit finds what is wrong: every seeded bug of the fake makes a case of its family fail, and nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.settings import DriverSettings
from daemon.driver_hosts import small_image
from drivers.conformance.on_host import HostRigs, Where
from drivers.conformance.report import Outcome, Verdict
from drivers.conformance.run import chosen, run
from drivers.fake_world import world
from drivers.transport.base import Endpoint
from tests.contract.seeds import BUGS, Bug

LIMIT_S, SOON_S = 60.0, 2.0  # for a case; where it is to be seen that one does not end


@pytest.fixture
async def rigs(tmp_path: Path) -> AsyncIterator[HostRigs]:
    world.reset()
    ends = [Endpoint(name, "192.0.2.1") for name in ("seeded-1", "seeded-2")]
    image = small_image(tmp_path)
    found = HostRigs(Where("fake", ends[0], DriverSettings(), bridge="br0", store_image=image, other=ends[1]))
    yield found
    await found.close()
    world.reset()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.title.replace(" ", "-"))
async def test_a_seeded_bug_is_found(rigs: HostRigs, bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bug.owner, bug.verb, bug.make(getattr(bug.owner, bug.verb)))
    told: list[Outcome] = []
    await run(rigs, chosen([bug.family]), told.append, first_failure=True, limit_s=SOON_S if bug.hangs else LIMIT_S)
    assert told[-1].verdict is Verdict.FAILED, f"{len(told)} cases did not see it"
    assert ("did not end" in told[-1].reason) == bug.hangs, told[-1].reason
    print(told[-1].case, "|", told[-1].reason)


def test_the_bugs_are_many_and_of_all_families() -> None:
    assert len(BUGS) >= 40
    assert {bug.family for bug in BUGS} == {"hypervisor", "storage", "network", "transport"}
