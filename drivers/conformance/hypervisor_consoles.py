"""What a hypervisor must do whose instances have a serial console, a screen, or tickets to one elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

from core.errors import Conflict
from core.ids import new_id, on_host
from drivers.conformance.cases import fail, raises, unsupported
from drivers.conformance.hypervisor import POWERS
from drivers.conformance.hypervisor_inside import running
from drivers.conformance.hypervisor_powers import needs
from drivers.conformance.rigs import HypervisorRig
from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.powers import Consoles, Displays, Tickets
from drivers.transport.base import ByteStream

Opened = Callable[[str], AbstractAsyncContextManager[ByteStream]]


async def until_read(stream: ByteStream, wanted: bytes, within_s: float = 20.0) -> bytes:
    seen = b""
    async with asyncio.timeout(within_s):
        while wanted not in seen:
            more = await stream.read()
            assert more, f"closed after {seen!r}"
            seen += more
    return seen


@POWERS.case("console")
async def console(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, Consoles):
        unsupported("the driver has no Consoles")
    typed, answer = needs(rig.console_talk, "guest that answers at its console: name an image that has an agent")
    spec = await running(rig)
    for _ in range(2):  # one that was closed can be opened again
        async with driver.console(spec.name) as stream:
            await answered(stream, typed, answer)
    await only_while_it_runs(rig, spec, driver.console)


async def answered(stream: ByteStream, typed: bytes, answer: bytes) -> None:
    """Type until somebody listens: a guest that boots does not, nor a hypervisor that has not attached yet."""
    seen = b""
    async with asyncio.timeout(20):
        while answer not in seen:
            await stream.write(typed)
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while answer not in seen:
                        more = await stream.read()
                        assert more, f"closed after {seen!r}"
                        seen += more


@POWERS.case("display")
async def display(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, Displays):
        unsupported("the driver has no Displays")
    spec = await running(rig)
    for _ in range(2):
        async with driver.display(spec.name) as stream:
            assert (await until_read(stream, b"\n")).startswith(b"RFB 003.")
    await only_while_it_runs(rig, spec, driver.display)


async def only_while_it_runs(rig: HypervisorRig, spec: InstanceSpec, opened: Opened) -> None:
    await rig.hypervisor.stop(spec.name, grace_s=0)
    for name in (spec.name, on_host(new_id())):
        with raises(Conflict):
            async with opened(name):
                fail("it was opened")


@POWERS.case("ticket")
async def a_ticket_is_good_for_one(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, Tickets):
        unsupported("the driver has no Tickets")
    spec = await running(rig)
    one, other = [await driver.ticket(spec.name) for _ in range(2)]
    assert one.url.startswith("wss://")
    assert one.url != other.url
    assert all((one.protocol, one.fingerprint))
    await rig.hypervisor.stop(spec.name, grace_s=0)
    for name in (spec.name, on_host(new_id())):
        with raises(Conflict):
            await driver.ticket(name)
