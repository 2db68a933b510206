"""The shipped cases of the conformance kit as pytest suites: a driver joins with a subclass and the fixture `rig`.

`<family>Contract` has one test for each case, named test_<case>; a subclass may replace one, or mark it in SLOW.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from drivers.conformance import (
    any_order,
    baremetal,
    carrier,
    hypervisor,
    hypervisor_consoles,
    hypervisor_disks,
    hypervisor_keeps,
    hypervisor_powers,
    network,
    storage,
    storage_restore,
    transport,
)
from drivers.conformance.cases import Case, NotReached, Suite, UnsupportedHere

assert {one.POWERS for one in (hypervisor_consoles, hypervisor_disks, hypervisor_keeps)} == {hypervisor_powers.POWERS}
# importing them fills the suites
assert storage_restore.CASES is storage.CASES


class Contract:
    """may_miss: tests that this driver's rig leaves out; else what is not reached is a failure."""

    may_miss: tuple[str, ...] = ()

    @pytest.fixture
    def rig(self) -> Any:
        pytest.fail("a driver that joins this suite gives its own rig")


def _test(case: Case[Any]) -> Callable[[Any, Any], Awaitable[None]]:
    async def test(self: Contract, rig: Any) -> None:
        try:
            await case.run(rig)
        except UnsupportedHere as reason:
            pytest.skip(str(reason))
        except NotReached as reason:
            if f"test_{case.name}" not in self.may_miss:
                pytest.fail(f"not reached: {reason}")
            pytest.skip(str(reason))

    test.__name__, test.__doc__ = f"test_{case.name}", case.run.__doc__
    return test


def _contract(name: str, *suites: Suite[Any]) -> type[Contract]:
    return type(name, (Contract,), {f"test_{case.name}": _test(case) for suite in suites for case in suite.cases})


TransportContract: Any = _contract("TransportContract", transport.CASES)
HypervisorContract: Any = _contract("HypervisorContract", hypervisor.CASES, any_order.LIVES)
PowersContract: Any = _contract("PowersContract", hypervisor.POWERS)
StorageContract: Any = _contract("StorageContract", storage.CASES, any_order.DISKS)
CarrierContract: Any = _contract("CarrierContract", carrier.CASES)
NetworkContract: Any = _contract("NetworkContract", network.CASES, any_order.BRIDGES)
BareMetalContract: Any = _contract("BareMetalContract", baremetal.CASES)
