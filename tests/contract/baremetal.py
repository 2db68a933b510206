"""What every driver of a BMC must do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from core.errors import CredentialRejected, Unreachable, Unsupported
from core.states import MachinePower
from drivers.baremetal.base import BareMetal, PowerChange
from tests.contract.tools import cancelled_after, settle


@dataclass
class BareMetalRig:
    """bmc: of a machine for these tests alone, which is on. boots: how often that machine was started so far, if known.

    asks: it can be shut down politely. wrong: the same with a wrong password; nobody: where no BMC answers.
    """

    bmc: BareMetal
    boots: Callable[[], Awaitable[int]] | None
    asks: bool = True
    wrong: BareMetal | None = None
    nobody: BareMetal | None = None
    delays_s: tuple[float, ...] = (0.0, 0.005, 0.02, 0.1)
    timeout_s: float = 60.0


class BareMetalContract:
    """Subclass it and give the fixture `rig`."""

    @pytest.fixture
    def rig(self) -> BareMetalRig:
        pytest.fail("a driver that joins this suite gives its own rig")

    async def set(self, rig: BareMetalRig, change: PowerChange) -> bool:
        return await settle(lambda: rig.bmc.set_power(change, timeout_s=rig.timeout_s))

    async def test_power_is_cut_and_put_on(self, rig: BareMetalRig) -> None:
        before = await self.boots(rig)
        assert await rig.bmc.power() is MachinePower.ON
        assert await self.set(rig, PowerChange.ON) is False
        assert await self.set(rig, PowerChange.FORCE_OFF) is True
        assert await rig.bmc.power() is MachinePower.OFF
        assert await self.set(rig, PowerChange.FORCE_OFF) is False
        assert await self.set(rig, PowerChange.ON) is True
        assert await rig.bmc.power() is MachinePower.ON
        await self.booted(rig, before + 1)

    async def test_a_reset_is_made_each_time(self, rig: BareMetalRig) -> None:
        for _ in range(2):
            before = await self.boots(rig)
            assert await self.set(rig, PowerChange.RESET) is True
            await settle(lambda wanted=before + 1: self.booted(rig, wanted), attempts=240)  # type: ignore[misc]
            assert await rig.bmc.power() is MachinePower.ON

    async def boots(self, rig: BareMetalRig) -> int:
        return 0 if rig.boots is None else await rig.boots()

    async def booted(self, rig: BareMetalRig, wanted: int) -> None:
        found = await self.boots(rig)
        if rig.boots is not None and found != wanted:
            raise Unreachable(f"{found} boots, not {wanted}")

    async def test_a_reset_of_what_is_off_puts_it_on(self, rig: BareMetalRig) -> None:
        await self.set(rig, PowerChange.FORCE_OFF)
        assert await self.set(rig, PowerChange.RESET) is True
        assert await rig.bmc.power() is MachinePower.ON

    async def test_a_polite_shutdown(self, rig: BareMetalRig) -> None:
        if not rig.asks:
            with pytest.raises(Unsupported) as caught:
                await rig.bmc.set_power(PowerChange.OFF)
            assert "ForceOff" in str(caught.value)
            assert await rig.bmc.power() is MachinePower.ON
            return
        assert await self.set(rig, PowerChange.OFF) is True
        assert await self.set(rig, PowerChange.OFF) is False
        assert await rig.bmc.power() is MachinePower.OFF

    async def test_killed_in_the_middle_and_run_again(self, rig: BareMetalRig) -> None:
        for delay_s in rig.delays_s:
            for change, power in ((PowerChange.FORCE_OFF, MachinePower.OFF), (PowerChange.ON, MachinePower.ON)):
                await cancelled_after(rig.bmc.set_power(change, timeout_s=rig.timeout_s), delay_s)
                await self.set(rig, change)
                assert await rig.bmc.power() is power, f"killed after {delay_s} s"

    async def test_by_several_at_once(self, rig: BareMetalRig) -> None:
        assert any(await asyncio.gather(*(self.set(rig, PowerChange.FORCE_OFF) for _ in range(3))))
        assert await rig.bmc.power() is MachinePower.OFF

    async def test_a_wrong_password_is_said_so(self, rig: BareMetalRig) -> None:
        if rig.wrong is None:
            pytest.skip("this driver has no passwords")
        for call in (rig.wrong.power, lambda: rig.wrong.set_power(PowerChange.FORCE_OFF)):
            with pytest.raises(CredentialRejected):
                await call()
        assert await rig.bmc.power() is MachinePower.ON

    async def test_a_bmc_that_does_not_answer(self, rig: BareMetalRig) -> None:
        if rig.nobody is None:
            pytest.skip("the rig has no such BMC")
        for call in (rig.nobody.power, lambda: rig.nobody.set_power(PowerChange.FORCE_OFF)):
            with pytest.raises(Unreachable):
                await asyncio.wait_for(call(), 10)

    async def test_closed(self, rig: BareMetalRig) -> None:
        await rig.bmc.power()
        await rig.bmc.close()
        await rig.bmc.close()
        with pytest.raises(Unreachable):
            await rig.bmc.power()
