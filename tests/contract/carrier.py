"""What everything must do that holds an instance's files and hands them on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from core.errors import Invalid
from core.ids import new_id
from drivers.carrier import Carrier, Parcel, carry, closing
from tests.contract.tools import cancelled_after, settle


@dataclass
class CarrierRig:
    """source: has files of an instance that is off; target: could take them, and has none.

    delays_s: when it is killed; the files are to be large enough that some of it happens in the middle.
    """

    source: Carrier
    target: Carrier
    instance_id: str
    delays_s: tuple[float, ...] = (0.0, 0.02, 0.1, 0.3)


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
    pytest.fail("what is there already is not read")
    yield b""


class CarrierContract:
    """Subclass it and give the fixture `rig`."""

    @pytest.fixture
    def rig(self) -> CarrierRig:
        pytest.fail("a driver that joins this suite gives its own rig")

    async def largest(self, rig: CarrierRig) -> Parcel:
        return max(await rig.source.parcels(rig.instance_id), key=lambda parcel: parcel.size_bytes)

    async def test_of_an_unknown_instance_there_is_nothing(self, rig: CarrierRig) -> None:
        for carrier in (rig.source, rig.target):
            assert await carrier.parcels(new_id()) == []
            assert await carrier.drop(new_id()) is False

    async def test_all_is_carried_once(self, rig: CarrierRig) -> None:
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

    async def test_there_and_back(self, rig: CarrierRig) -> None:
        parcels = await rig.source.parcels(rig.instance_id)
        await carry(rig.source, rig.target, rig.instance_id)
        assert await rig.source.drop(rig.instance_id) is True
        assert await rig.source.drop(rig.instance_id) is False
        assert await rig.source.parcels(rig.instance_id) == []
        await carry(rig.target, rig.source, rig.instance_id)
        assert await rig.source.parcels(rig.instance_id) == parcels

    async def test_what_is_read_is_as_it_says(self, rig: CarrierRig) -> None:
        parcel = await self.largest(rig)
        sizes = [len(chunk) async for chunk in rig.source.read(rig.instance_id, parcel)]
        assert sum(sizes) == parcel.size_bytes
        assert max(sizes) <= 2**21

    async def test_other_content_is_refused(self, rig: CarrierRig) -> None:
        parcel = await self.largest(rig)
        wrong = replace(parcel, sha256="0" * 64)
        with pytest.raises(Invalid):
            await rig.target.write(rig.instance_id, wrong, rig.source.read(rig.instance_id, parcel))
        with pytest.raises(Invalid):
            await rig.target.write(rig.instance_id, parcel, broken(rig.source.read(rig.instance_id, parcel), False))
        assert await rig.target.parcels(rig.instance_id) == []

    async def test_a_broken_stream_leaves_nothing_that_counts(self, rig: CarrierRig) -> None:
        parcel = await self.largest(rig)
        with pytest.raises(Lost):
            await rig.target.write(rig.instance_id, parcel, broken(rig.source.read(rig.instance_id, parcel)))
        assert await rig.target.parcels(rig.instance_id) == []
        assert await carry(rig.source, rig.target, rig.instance_id) > 0
        assert await rig.target.parcels(rig.instance_id) == await rig.source.parcels(rig.instance_id)

    async def test_a_name_leads_nowhere_else(self, rig: CarrierRig) -> None:
        for name in ("../root.qcow2", "/etc/rackflow-test", "", ".hidden"):
            parcel = Parcel(name, 1, "0" * 64)
            with pytest.raises(Invalid):
                await rig.target.write(rig.instance_id, parcel, unread())

    async def test_killed_anywhere_the_next_finishes_it(self, rig: CarrierRig) -> None:
        parcels = await rig.source.parcels(rig.instance_id)
        for delay_s in rig.delays_s:
            await cancelled_after(carry(rig.source, rig.target, rig.instance_id), delay_s)
            assert {*await rig.target.parcels(rig.instance_id)} <= {*parcels}
            await settle(lambda: carry(rig.source, rig.target, rig.instance_id))
            assert await rig.target.parcels(rig.instance_id) == parcels
            await cancelled_after(rig.target.drop(rig.instance_id), delay_s / 10)
            await settle(lambda: rig.target.drop(rig.instance_id))
            assert await rig.target.parcels(rig.instance_id) == []
