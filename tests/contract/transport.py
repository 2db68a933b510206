"""What every transport must do."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.errors import HostFault, NotFound, Unreachable
from drivers.transport.base import Transport
from tests.contract.tools import cancelled_after


@dataclass
class TransportRig:
    """folder: an existing, writable folder on the host for this test alone."""

    transport: Transport
    folder: str


class TransportContract:
    """Subclass it and give the fixture `rig`."""

    @pytest.fixture
    def rig(self) -> TransportRig:
        pytest.fail("a driver that joins this suite gives its own rig")

    async def test_run_keeps_argv_as_it_is(self, rig: TransportRig) -> None:
        words = ["a b", "$HOME", "'", '"', "*", "", "\\", "ü", ";true", "`id`"]
        found = await rig.transport.run(["echo", *words])
        assert (found.exit_code, found.stdout, found.stderr) == (0, " ".join(words) + "\n", "")
        assert found.argv == ("echo", *words)

    async def test_exit_codes(self, rig: TransportRig) -> None:
        assert (await rig.transport.run(["false"], check=False)).exit_code == 1
        assert (await rig.transport.run(["no-such-program"], check=False)).exit_code == 127
        with pytest.raises(HostFault) as caught:
            await rig.transport.run(["cat", f"{rig.folder}/none"])
        assert "cat" in str(caught.value)
        assert rig.transport.endpoint.name in caught.value.subject

    async def test_stdin(self, rig: TransportRig) -> None:
        assert (await rig.transport.run(["cat"], stdin=b"one\ntwo\n")).stdout == "one\ntwo\n"

    async def test_without_stdin_a_reader_sees_its_end(self, rig: TransportRig) -> None:
        assert (await rig.transport.run(["cat"], timeout_s=10)).stdout == ""

    async def test_a_deadline(self, rig: TransportRig) -> None:
        begin = time.monotonic()
        with pytest.raises(Unreachable):
            await rig.transport.run(["sleep", "30"], timeout_s=0.3)
        assert time.monotonic() - begin < 5
        assert (await rig.transport.run(["true"])).exit_code == 0

    async def test_many_at_once(self, rig: TransportRig) -> None:
        found = await asyncio.gather(*(rig.transport.run(["echo", str(n)]) for n in range(30)))
        assert [one.stdout for one in found] == [f"{n}\n" for n in range(30)]

    async def test_killed_calls_leave_the_connection_usable(self, rig: TransportRig) -> None:
        for delay_s in (0.0, 0.01, 0.05, 0.1):
            assert await cancelled_after(rig.transport.run(["sleep", "30"]), delay_s)
        assert (await rig.transport.run(["echo", "x"])).stdout == "x\n"

    async def test_put_and_get(self, rig: TransportRig, tmp_path: Path) -> None:
        target, data, local = f"{rig.folder}/file", b"a\x00\n" * 50_000, tmp_path / "data"
        done: list[tuple[int, int]] = []
        await rig.transport.put(b"before", target)
        local.write_bytes(data)
        await rig.transport.put(local, target, progress=lambda now, all_: done.append((now, all_)))
        assert await rig.transport.get(target) == data
        assert done[-1] == (len(data), len(data))
        await rig.transport.put(local, target, resume=True)
        assert await rig.transport.get(target) == data
        await rig.transport.run(["rm", target])
        with pytest.raises(NotFound):
            await rig.transport.get(target)

    async def test_a_session_lives_until_it_is_closed(self, rig: TransportRig) -> None:
        async with rig.transport.session(["cat"]) as session:
            assert session.is_alive()
            await session.write(b"one\n")
            lines = session.lines()
            assert (await asyncio.wait_for(anext(lines), 5)).rstrip("\n") == "one"
            assert session.is_alive()
        assert not session.is_alive()

    async def test_a_lock_is_held_by_one_session(self, rig: TransportRig) -> None:
        argv = ["flock", "-n", f"{rig.folder}/lock", "cat"]
        async with rig.transport.session(argv) as first:
            await first.write(b"held\n")
            assert (await asyncio.wait_for(anext(first.lines()), 5)).rstrip("\n") == "held"
            async with rig.transport.session(argv) as second:
                assert await asyncio.wait_for(second.wait(), 5) == 1
            assert first.is_alive()
        async with rig.transport.session(argv) as third:
            await third.write(b"mine\n")
            assert (await asyncio.wait_for(anext(third.lines()), 5)).rstrip("\n") == "mine"

    async def test_a_closed_connection(self, rig: TransportRig) -> None:
        under_way = asyncio.ensure_future(rig.transport.run(["sleep", "30"]))
        await asyncio.sleep(0.2)
        await rig.transport.close()
        with pytest.raises(Unreachable):
            await asyncio.wait_for(under_way, 5)
        with pytest.raises(Unreachable):
            await rig.transport.run(["true"])
