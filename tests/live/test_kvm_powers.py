"""KVM passes the suite of optional powers, against two hosts of the lab."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from drivers.conformance.rigs import HypervisorRig
from tests.contract.suites import PowersContract
from tests.labs import Lab
from tests.live.kvm_powers import pair_of, rig_of


class TestKvmPowers(PowersContract):
    SLOW = (  # each boots a guest of its own; the live pairs of verbs and faults kill the same calls
        "test_a_reboot_that_was_killed", "test_a_save_that_was_killed", "test_snapshots_that_were_killed",
        "test_backups_that_were_killed", "test_a_snapshot_with_memory", "test_a_polite_reboot", "test_display",
        "test_a_snapshot_brings_back_what_was_on_the_disk",  # as test_lifecycle.py does through the flows
    )  # fmt: skip

    @pytest.fixture
    async def rig(self, lab: Lab) -> AsyncIterator[HypervisorRig]:
        async with pair_of(lab) as pair:
            yield rig_of(pair)
