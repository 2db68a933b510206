"""One BMC before many machines: it gets as many at a time as it bears."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import HostFault, Unreachable
from tasks.bmc_slots import FIRST, MOST, BmcSlots, service_of


class Bmc:
    """Serves `bears` calls at a time, and is silent to more."""

    def __init__(self, bears: int) -> None:
        self.bears, self.now, self.most, self.refused = bears, 0, 0, 0

    async def call(self, slots: BmcSlots) -> None:
        while True:
            try:
                async with slots:
                    await self._serve()
                return
            except Unreachable:
                await asyncio.sleep(0)

    async def _serve(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.001)
            if self.now > self.bears:
                self.refused += 1
                raise Unreachable("busy")
        finally:
            self.now -= 1


async def test_one_that_bears_much_is_soon_given_much() -> None:
    bmc, slots = Bmc(10_000), BmcSlots()  # enough calls that many still wait when it may take the most
    await asyncio.gather(*(bmc.call(slots) for _ in range(3000)))
    assert (bmc.most, slots.limit, slots.busy) == (MOST, MOST, 0)


async def test_one_that_bears_little_is_found_out_about_and_all_get_through() -> None:
    bmc, slots = Bmc(12), BmcSlots()
    await asyncio.gather(*(bmc.call(slots) for _ in range(600)))
    assert slots.was_in_trouble
    assert bmc.refused < 200
    assert slots.limit < 40
    assert slots.busy == 0


async def test_what_is_wrong_with_one_machine_slows_nobody() -> None:
    slots = BmcSlots()
    for _ in range(20):
        with pytest.raises(HostFault):
            async with slots:
                raise HostFault("a dead disk")
    assert (slots.limit, slots.busy) == (FIRST, 0)


async def test_who_is_cancelled_while_waiting_takes_no_turn() -> None:
    slots = BmcSlots(limit=1)
    ran: list[int] = []

    async def hold(number: int) -> None:
        async with slots:
            ran.append(number)
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(hold(number)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert ran == [0, 2, 3]
    assert slots.busy == 0


def test_machines_behind_one_address_share_it() -> None:
    same = ("https://bmc-1:443/", "https://BMC-1:443/redfish/v1/Systems/2")
    assert {service_of(one) for one in same} == {"bmc-1:443"}
    assert service_of("ironic+http://10.0.0.2:6385") == "10.0.0.2:6385"
    assert service_of("fake://m1") != service_of("fake://m2")
