"""KVM passes the suite of optional powers, against two hosts of the lab."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.hypervisor import HypervisorRig
from tests.contract.hypervisor_powers import PowersContract
from tests.labs import Lab
from tests.live.kvm_powers import pair_of, rig_of


class TestKvmPowers(PowersContract):
    @pytest.fixture
    async def rig(self, lab: Lab) -> AsyncIterator[HypervisorRig]:
        async with pair_of(lab) as pair:
            yield rig_of(pair)
