"""SSH connections to a server in this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from core.errors import Busy, HostFault, Unreachable
from core.settings import DriverSettings
from drivers.conformance.transport import TransportRig, endless
from drivers.transport.base import Endpoint, Result, Transport
from drivers.transport.ssh import connect
from tests.contract.suites import TransportContract
from tests.integration.sshd import sshd


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    async with sshd(tmp_path) as found:
        yield found


@pytest.fixture
async def transport(endpoint: Endpoint) -> AsyncIterator[Transport]:
    found = await connect(endpoint, DriverSettings())
    yield found
    await found.close()


class TestSshTransport(TransportContract):
    """The suite of all transports."""

    @pytest.fixture
    def rig(self, transport: Transport, tmp_path: Path) -> TransportRig:
        return TransportRig(transport, str(tmp_path), transport.endpoint.port)


def many(work: Callable[[], Coroutine[Any, Any, Any]], number: int = 8) -> list[asyncio.Future[Any]]:
    return [asyncio.ensure_future(work()) for _ in range(number)]


async def ended(futures: Sequence[asyncio.Future[Any]]) -> None:
    for one in futures:
        one.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


async def test_who_gets_no_channel_in_time_is_told_what_is_under_way(transport: Transport) -> None:
    under_way = many(lambda: transport.run(["sleep", "30"]))
    await asyncio.sleep(0.3)
    with pytest.raises(Busy, match="8 commands are under way on here") as caught:
        await asyncio.wait_for(transport.run(["true"], timeout_s=0.5), 5)
    assert caught.value.evidence == {"argv": ["true"], "under_way": ["sleep"] * 8, "waited_s": 0.5}
    await ended(under_way)
    assert (await transport.run(["echo", "x"], timeout_s=5)).stdout == "x\n"


async def test_waiting_for_a_channel_takes_nothing_from_the_deadline(transport: Transport) -> None:
    under_way = many(lambda: transport.run(["sleep", "1"]))
    assert (await transport.run(["sleep", "0.9"], timeout_s=1.5)).exit_code == 0
    await asyncio.gather(*under_way)


async def test_one_that_stops_waiting_leaves_the_channels_to_others(transport: Transport) -> None:
    under_way = many(lambda: transport.run(["sleep", "30"]))
    await asyncio.sleep(0.3)
    await ended(many(lambda: transport.read(["cat"]).__anext__()))
    await ended(under_way)
    found = await asyncio.gather(*many(lambda: transport.run(["true"], timeout_s=5), 20))
    assert {one.exit_code for one in found} == {0}


async def read(transport: Transport) -> None:
    async for _ in transport.read(["sleep", "30"]):
        pass


async def converse(transport: Transport) -> None:
    async with transport.session(["cat"]):
        await asyncio.sleep(30)


@pytest.mark.parametrize(
    "long",
    [
        lambda transport: [*many(lambda: read(transport)), *many(lambda: transport.write(endless(), ["cat"]))],
        lambda transport: many(lambda: transport.put(Path(__file__), "kept", resume=True)),
        lambda transport: many(lambda: transport.run(["sleep", "30"], timeout_s=3600)),
        lambda transport: many(lambda: converse(transport)),
    ],
    ids=["streams", "files", "long commands", "sessions"],
)
async def test_what_lasts_leaves_channels_to_short_commands(
    transport: Transport, long: Callable[[Transport], list[asyncio.Future[Any]]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    os.mkfifo(".kept.part")  # who writes to it waits for a reader
    under_way = long(transport)
    await asyncio.sleep(0.3)
    found = await asyncio.gather(*many(lambda: transport.run(["true"], timeout_s=5), 20))
    assert {one.exit_code for one in found} == {0}
    await ended(under_way)


async def test_a_session_that_gets_no_channel_says_so(endpoint: Endpoint) -> None:
    transport = await connect(endpoint, DriverSettings(connect_timeout_s=0.5))
    under_way = many(lambda: converse(transport))
    await asyncio.sleep(1)
    found = [one.exception() for one in under_way if one.done()]
    assert len(found) == 4
    assert {type(one) for one in found} == {Busy}
    await ended(under_way)
    await transport.close()


async def test_hosts_that_copy_to_each_other_do_not_wait_for_each_other(endpoint: Endpoint, tmp_path: Path) -> None:
    one, other = [await connect(endpoint, DriverSettings()) for _ in range(2)]
    (tmp_path / "file").write_bytes(bytes(2**20))

    async def copy(source: Transport, target: Transport) -> Result:
        return await target.write(source.read(["cat", str(tmp_path / "file")]), ["wc", "-c"], timeout_s=20)

    found = await asyncio.gather(*many(lambda: copy(one, other), 12), *many(lambda: copy(other, one), 12))
    assert {result.stdout.strip() for result in found} == {str(2**20)}
    await one.close()
    await other.close()


async def test_a_channel_that_does_not_open_is_given_up(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.sleep(60)

    with monkeypatch.context() as patched:
        patched.setattr(asyncssh.SSHClientConnection, "create_process", never)
        with pytest.raises(Unreachable, match="true on here did not end"):
            await asyncio.wait_for(transport.run(["true"], timeout_s=0.3), 5)
    assert (await transport.run(["echo", "x"], timeout_s=5)).stdout == "x\n"


async def test_a_unix_socket_of_the_host(transport: Transport, tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    path = str(tmp_path / "echo.sock")
    async with await asyncio.start_unix_server(echo, path):
        for _ in range(2):
            async with transport.connect(path) as stream:
                await stream.write(b"hello\n")
                assert await asyncio.wait_for(stream.read(), 5) == b"hello\n"
    with pytest.raises(HostFault, match=r"socket .*gone\.sock of here could not be connected to"):
        async with transport.connect(str(tmp_path / "gone.sock")):
            pytest.fail("nobody listens there")
