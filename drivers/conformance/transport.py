"""What every transport must do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import HostFault, NotFound, Unreachable
from drivers.conformance.cases import Suite, fail, raises
from drivers.conformance.tools import cancelled_after
from drivers.hosts import verbs_of
from drivers.transport.base import Transport


@dataclass
class TransportRig:
    """folder: an existing, writable folder on the host for this test alone.

    port: where somebody listens who greets with a line and answers one; sshd does.
    """

    transport: Transport
    folder: str
    port: int = 22
    greeting: bytes = b"SSH-2.0-"


CASES: Suite[TransportRig] = Suite("transport", verbs_of(Transport))


class Broken(Exception):
    """What goes wrong with the content of a stream."""


async def chunks(data: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    """Yield data in pieces, and then an error if there is to be one."""
    for start in range(0, len(data), 2**17):
        yield data[start : start + 2**17]
    if error is not None:
        raise error


async def endless() -> AsyncIterator[bytes]:
    """Yield a little now and then."""
    while True:
        yield b"x"
        await asyncio.sleep(0.05)


@CASES.case("run")
async def run_keeps_argv_as_it_is(rig: TransportRig) -> None:
    words = ["a b", "$HOME", "'", '"', "*", "", "\\", "ü", ";true", "`id`"]
    found = await rig.transport.run(["echo", *words])
    assert (found.exit_code, found.stdout, found.stderr) == (0, " ".join(words) + "\n", "")
    assert found.argv == ("echo", *words)


@CASES.case("run")
async def exit_codes(rig: TransportRig) -> None:
    assert (await rig.transport.run(["false"], check=False)).exit_code == 1
    assert (await rig.transport.run(["no-such-program"], check=False)).exit_code == 127
    with raises(HostFault) as caught:
        await rig.transport.run(["cat", f"{rig.folder}/none"])
    assert "cat" in str(caught.value)
    assert rig.transport.endpoint.name in caught.value.subject


@CASES.case("run")
async def stdin(rig: TransportRig) -> None:
    assert (await rig.transport.run(["cat"], stdin=b"one\ntwo\n")).stdout == "one\ntwo\n"


@CASES.case("run")
async def without_stdin_a_reader_sees_its_end(rig: TransportRig) -> None:
    assert (await rig.transport.run(["cat"], timeout_s=10)).stdout == ""


@CASES.case("run")
async def a_deadline(rig: TransportRig) -> None:
    begin = time.monotonic()
    with raises(Unreachable):
        await rig.transport.run(["sleep", "30"], timeout_s=0.3)
    assert time.monotonic() - begin < 5
    assert (await rig.transport.run(["true"])).exit_code == 0


@CASES.case("run")
async def many_at_once(rig: TransportRig) -> None:
    found = await asyncio.gather(*(rig.transport.run(["echo", str(n)]) for n in range(30)))
    assert [one.stdout for one in found] == [f"{n}\n" for n in range(30)]


@CASES.case("run")
async def killed_calls_leave_the_connection_usable(rig: TransportRig) -> None:
    for delay_s in (0.0, 0.01, 0.05, 0.1):
        assert await cancelled_after(rig.transport.run(["sleep", "30"]), delay_s)
    assert (await rig.transport.run(["echo", "x"])).stdout == "x\n"


@CASES.case("put", "get")
async def put_and_get(rig: TransportRig) -> None:
    with TemporaryDirectory() as folder:
        await through(rig, Path(folder) / "data")


async def through(rig: TransportRig, local: Path) -> None:
    target, data = f"{rig.folder}/file", b"a\x00\n" * 50_000
    done: list[tuple[int, int]] = []
    await rig.transport.put(b"before", target)
    await asyncio.to_thread(local.write_bytes, data)
    await rig.transport.put(local, target, progress=lambda now, all_: done.append((now, all_)))
    assert await rig.transport.get(target) == data
    assert done[-1] == (len(data), len(data))
    await rig.transport.put(local, target, resume=True)
    assert await rig.transport.get(target) == data
    await rig.transport.run(["rm", target])
    with raises(NotFound):
        await rig.transport.get(target)


@CASES.case("session")
async def a_session_lives_until_it_is_closed(rig: TransportRig) -> None:
    async with rig.transport.session(["cat"]) as session:
        assert session.is_alive()
        await session.write(b"one\n")
        lines = session.lines()
        assert (await asyncio.wait_for(anext(lines), 5)).rstrip("\n") == "one"
        assert session.is_alive()
    assert not session.is_alive()


@CASES.case("session")
async def a_lock_is_held_by_one_session(rig: TransportRig) -> None:
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


@CASES.case("session")
async def a_session_is_read_as_bytes(rig: TransportRig) -> None:
    async with rig.transport.session(["cat"]) as session:
        await session.write(b"one\n")
        assert await asyncio.wait_for(session.read(), 5) == b"one\n"


async def filled(rig: TransportRig) -> tuple[str, bytes]:
    """Return a file on the host that is larger than what is on its way at a time."""
    target, data = f"{rig.folder}/large", bytes(range(256)) * 2**15
    await rig.transport.put(data, target)
    return target, data


@CASES.case("read")
async def what_a_command_prints_is_streamed(rig: TransportRig) -> None:
    target, data = await filled(rig)
    found = [chunk async for chunk in rig.transport.read(["cat", target])]
    assert b"".join(found) == data
    assert max(map(len, found)) <= 2**20


@CASES.case("read")
async def a_stream_whose_command_fails(rig: TransportRig) -> None:
    target, data = await filled(rig)
    got = bytearray()
    with raises(HostFault) as caught:
        await _all(rig.transport.read(["cat", target, f"{rig.folder}/none"]), got)
    assert got == data
    assert "none" in str(caught.value)
    assert rig.transport.endpoint.name in caught.value.subject


@CASES.case("read")
async def a_stream_has_a_deadline(rig: TransportRig) -> None:
    begin = time.monotonic()
    with raises(Unreachable):
        await _all(rig.transport.read(["sleep", "30"], timeout_s=0.3))
    assert time.monotonic() - begin < 5


@CASES.case("read")
async def streams_left_early_leave_the_connection_usable(rig: TransportRig) -> None:
    target, data = await filled(rig)
    for _ in range(12):
        stream = rig.transport.read(["cat", target])
        first = await anext(stream)
        assert data.startswith(first)
        await stream.aclose()  # type: ignore[attr-defined]
    for delay_s in (0.0, 0.01, 0.1):
        assert await cancelled_after(_all(rig.transport.read(["sleep", "30"])), delay_s)
    assert (await rig.transport.run(["echo", "x"])).stdout == "x\n"


async def _all(content: AsyncIterator[bytes], got: bytearray | None = None) -> None:
    async for chunk in content:
        if got is not None:
            got += chunk


@CASES.case("write")
async def content_is_streamed_into_a_command(rig: TransportRig) -> None:
    data, target = bytes(range(256)) * 2**15, f"{rig.folder}/written"
    found = await rig.transport.write(chunks(data), ["tee", target])
    assert (found.exit_code, found.stderr) == (0, "")
    assert await rig.transport.get(target) == data


@CASES.case("write")
async def a_command_that_takes_no_content(rig: TransportRig) -> None:
    with raises(HostFault):
        await rig.transport.write(chunks(bytes(2**23)), ["false"])
    assert (await rig.transport.write(chunks(bytes(2**23)), ["true"])).exit_code == 0


@CASES.case("write")
async def an_error_of_content_ends_the_command(rig: TransportRig) -> None:
    with raises(Broken):
        await asyncio.wait_for(rig.transport.write(chunks(b"some", Broken()), ["cat"]), 10)
    assert await cancelled_after(rig.transport.write(endless(), ["sleep", "30"]), 0.2)
    assert (await rig.transport.run(["echo", "x"])).stdout == "x\n"


@CASES.case("connect")
async def a_port_is_reached(rig: TransportRig) -> None:
    async with rig.transport.connect(rig.port) as stream:
        got = b""
        while not got.endswith(b"\n"):
            got += await asyncio.wait_for(stream.read(), 5)
        assert got.startswith(rig.greeting)
        await stream.write(b"SSH-2.0-test\r\n")
        assert len(await asyncio.wait_for(stream.read(), 5)) > 0


@CASES.case("connect")
async def a_port_where_nobody_listens(rig: TransportRig) -> None:
    with raises(HostFault) as caught:
        async with rig.transport.connect(1):
            fail("nobody listens there")
    assert "port 1 " in f"{caught.value} "


@CASES.case("close", "read", "write", "connect")
async def streams_end_with_their_connection(rig: TransportRig) -> None:
    target, _ = await filled(rig)
    stream = rig.transport.read(["cat", target])
    await anext(stream)
    writing = asyncio.ensure_future(rig.transport.write(endless(), ["cat"]))
    await asyncio.sleep(0.1)
    await rig.transport.close()
    with raises(Unreachable):
        await asyncio.wait_for(_all(stream), 5)
    with raises(Unreachable):
        await asyncio.wait_for(writing, 5)
    with raises(Unreachable):
        await _all(rig.transport.read(["cat", target]))
    with raises(Unreachable):
        async with rig.transport.connect(22):
            fail("there is no connection")


@CASES.case("close", "run")
async def a_closed_connection(rig: TransportRig) -> None:
    under_way = asyncio.ensure_future(rig.transport.run(["sleep", "30"]))
    await asyncio.sleep(0.2)
    await rig.transport.close()
    with raises(Unreachable):
        await asyncio.wait_for(under_way, 5)
    with raises(Unreachable):
        await rig.transport.run(["true"])
