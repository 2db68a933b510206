"""What every driver of a BMC must do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from core.errors import CredentialRejected, Unreachable, Unsupported
from core.states import MachinePower
from drivers.baremetal.base import BareMetal, PowerChange
from drivers.conformance.cases import Suite, raises, unsupported
from drivers.conformance.tools import cancelled_after, settle
from drivers.hosts import verbs_of


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


CASES: Suite[BareMetalRig] = Suite("baremetal", verbs_of(BareMetal))


async def change_power(rig: BareMetalRig, change: PowerChange) -> bool:
    return await settle(lambda: rig.bmc.set_power(change, timeout_s=rig.timeout_s))


@CASES.case("power", "set_power")
async def power_is_cut_and_put_on(rig: BareMetalRig) -> None:
    before = await boots(rig)
    assert await rig.bmc.power() is MachinePower.ON
    assert await change_power(rig, PowerChange.ON) is False
    assert await change_power(rig, PowerChange.FORCE_OFF) is True
    assert await rig.bmc.power() is MachinePower.OFF
    assert await change_power(rig, PowerChange.FORCE_OFF) is False
    assert await change_power(rig, PowerChange.ON) is True
    assert await rig.bmc.power() is MachinePower.ON
    await booted(rig, before + 1)


@CASES.case("set_power")
async def a_reset_is_made_each_time(rig: BareMetalRig) -> None:
    for _ in range(2):
        before = await boots(rig)
        assert await change_power(rig, PowerChange.RESET) is True
        await settle(lambda wanted=before + 1: booted(rig, wanted), attempts=240)  # type: ignore[misc]
        assert await rig.bmc.power() is MachinePower.ON


async def boots(rig: BareMetalRig) -> int:
    return 0 if rig.boots is None else await rig.boots()


async def booted(rig: BareMetalRig, wanted: int) -> None:
    found = await boots(rig)
    if rig.boots is not None and found != wanted:
        raise Unreachable(f"{found} boots, not {wanted}")


@CASES.case("set_power")
async def a_reset_of_what_is_off_puts_it_on(rig: BareMetalRig) -> None:
    await change_power(rig, PowerChange.FORCE_OFF)
    assert await change_power(rig, PowerChange.RESET) is True
    assert await rig.bmc.power() is MachinePower.ON


@CASES.case("set_power")
async def a_polite_shutdown(rig: BareMetalRig) -> None:
    if not rig.asks:
        with raises(Unsupported) as caught:
            await rig.bmc.set_power(PowerChange.OFF)
        assert "ForceOff" in str(caught.value)
        assert await rig.bmc.power() is MachinePower.ON
        return
    assert await change_power(rig, PowerChange.OFF) is True
    assert await change_power(rig, PowerChange.OFF) is False
    assert await rig.bmc.power() is MachinePower.OFF


@CASES.case("set_power")
async def killed_in_the_middle_and_run_again(rig: BareMetalRig) -> None:
    for delay_s in rig.delays_s:
        for change, power in ((PowerChange.FORCE_OFF, MachinePower.OFF), (PowerChange.ON, MachinePower.ON)):
            await cancelled_after(rig.bmc.set_power(change, timeout_s=rig.timeout_s), delay_s)
            await change_power(rig, change)
            assert await rig.bmc.power() is power, f"killed after {delay_s} s"


@CASES.case("set_power")
async def by_several_at_once(rig: BareMetalRig) -> None:
    assert any(await asyncio.gather(*(change_power(rig, PowerChange.FORCE_OFF) for _ in range(3))))
    assert await rig.bmc.power() is MachinePower.OFF


@CASES.case("power", "set_power")
async def a_wrong_password_is_said_so(rig: BareMetalRig) -> None:
    if rig.wrong is None:
        unsupported("this driver has no passwords")
    for call in (rig.wrong.power, lambda: rig.wrong.set_power(PowerChange.FORCE_OFF)):
        with raises(CredentialRejected):
            await call()
    assert await rig.bmc.power() is MachinePower.ON


@CASES.case("power")
async def a_bmc_that_does_not_answer(rig: BareMetalRig) -> None:
    if rig.nobody is None:
        unsupported("the rig has no such BMC")
    for call in (rig.nobody.power, lambda: rig.nobody.set_power(PowerChange.FORCE_OFF)):
        with raises(Unreachable):
            await asyncio.wait_for(call(), 10)


@CASES.case("close")
async def closed(rig: BareMetalRig) -> None:
    await rig.bmc.power()
    await rig.bmc.close()
    await rig.bmc.close()
    with raises(Unreachable):
        await rig.bmc.power()
