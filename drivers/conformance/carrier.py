"""What everything must do that holds an instance's files and hands them on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from core.errors import Invalid
from core.ids import new_id
from drivers.carrier import Carrier, Parcel, carry, closing
from drivers.conformance.cases import Suite, fail, raises
from drivers.conformance.tools import cancelled_after, settle
from drivers.hosts import verbs_of
from drivers.storage.base import Storage


@dataclass
class CarrierRig:
    """source: has files of an instance that is off; target: could take them, and has none.

    delays_s: when it is killed; the files are to be large enough that some of it happens in the middle.
    """

    source: Carrier
    target: Carrier
    instance_id: str
    delays_s: tuple[float, ...] = (0.0, 0.02, 0.1, 0.3)


CASES: Suite[CarrierRig] = Suite("storage", verbs_of(Storage))


class Lost(Exception):
    """What goes wrong with the content on its way."""


async def broken(content: AsyncIterator[bytes], error: bool = True) -> AsyncIterator[bytes]:
    """Yield the first piece; then fail, or end as if that were all."""
    async with closing(content):
        async for chunk in content:
            yield chunk[: max(1, len(chunk) // 2)]
            break
    if error:
        raise Lost


async def unread() -> AsyncIterator[bytes]:
    fail("what is there already is not read")
    yield b""


async def largest(rig: CarrierRig) -> Parcel:
    return max(await rig.source.parcels(rig.instance_id), key=lambda parcel: parcel.size_bytes)


@CASES.case("carrier")
async def of_an_unknown_instance_there_is_nothing(rig: CarrierRig) -> None:
    for carrier in (rig.source, rig.target):
        assert await carrier.parcels(new_id()) == []
        assert await carrier.drop(new_id()) is False


@CASES.case("carrier")
async def all_is_carried_once(rig: CarrierRig) -> None:
    told: list[tuple[int, int]] = []
    parcels = await rig.source.parcels(rig.instance_id)
    total = sum(parcel.size_bytes for parcel in parcels)
    assert await carry(rig.source, rig.target, rig.instance_id, lambda *now: told.append(now)) == total
    assert told == sorted(told)
    assert told[-1] == (total, total)
    assert await rig.target.parcels(rig.instance_id) == parcels
    assert await rig.source.parcels(rig.instance_id) == parcels
    assert await carry(rig.source, rig.target, rig.instance_id) == 0
    for parcel in parcels:
        assert await rig.target.write(rig.instance_id, parcel, unread()) is False


@CASES.case("carrier")
async def there_and_back(rig: CarrierRig) -> None:
    parcels = await rig.source.parcels(rig.instance_id)
    await carry(rig.source, rig.target, rig.instance_id)
    assert await rig.source.drop(rig.instance_id) is True
    assert await rig.source.drop(rig.instance_id) is False
    assert await rig.source.parcels(rig.instance_id) == []
    await carry(rig.target, rig.source, rig.instance_id)
    assert await rig.source.parcels(rig.instance_id) == parcels


@CASES.case("carrier")
async def what_is_read_is_as_it_says(rig: CarrierRig) -> None:
    parcel = await largest(rig)
    sizes = [len(chunk) async for chunk in rig.source.read(rig.instance_id, parcel)]
    assert sum(sizes) == parcel.size_bytes
    assert max(sizes) <= 2**21


@CASES.case("carrier")
async def other_content_is_refused(rig: CarrierRig) -> None:
    parcel = await largest(rig)
    wrong = replace(parcel, sha256="0" * 64)
    with raises(Invalid):
        await rig.target.write(rig.instance_id, wrong, rig.source.read(rig.instance_id, parcel))
    with raises(Invalid):
        await rig.target.write(rig.instance_id, parcel, broken(rig.source.read(rig.instance_id, parcel), False))
    assert await rig.target.parcels(rig.instance_id) == []


@CASES.case("carrier")
async def a_broken_stream_leaves_nothing_that_counts(rig: CarrierRig) -> None:
    parcel = await largest(rig)
    with raises(Lost):
        await rig.target.write(rig.instance_id, parcel, broken(rig.source.read(rig.instance_id, parcel)))
    assert await rig.target.parcels(rig.instance_id) == []
    assert await carry(rig.source, rig.target, rig.instance_id) > 0
    assert await rig.target.parcels(rig.instance_id) == await rig.source.parcels(rig.instance_id)


@CASES.case("carrier")
async def a_name_leads_nowhere_else(rig: CarrierRig) -> None:
    for name in ("../root.qcow2", "/etc/rackflow-test", "", ".hidden"):
        parcel = Parcel(name, 1, "0" * 64)
        with raises(Invalid):
            await rig.target.write(rig.instance_id, parcel, unread())


@CASES.case("carrier")
async def killed_anywhere_the_next_finishes_it(rig: CarrierRig) -> None:
    parcels = await rig.source.parcels(rig.instance_id)
    for delay_s in rig.delays_s:
        await cancelled_after(carry(rig.source, rig.target, rig.instance_id), delay_s)
        assert {*await rig.target.parcels(rig.instance_id)} <= {*parcels}
        await settle(lambda: carry(rig.source, rig.target, rig.instance_id))
        assert await rig.target.parcels(rig.instance_id) == parcels
        await cancelled_after(rig.target.drop(rig.instance_id), delay_s / 10)
        await settle(lambda: rig.target.drop(rig.instance_id))
        assert await rig.target.parcels(rig.instance_id) == []
