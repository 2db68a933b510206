"""Streams over SSH against a host of the lab: what is left there when they are cut."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from core.errors import HostFault, Unreachable
from core.settings import DriverSettings
from drivers.conformance.tools import cancelled_after
from drivers.conformance.transport import Broken, TransportRig, chunks, endless
from drivers.transport.base import Transport
from drivers.transport.ssh import connect
from tests.contract.suites import TransportContract
from tests.labs import Lab


@pytest.fixture
async def transport(lab: Lab) -> AsyncIterator[Transport]:
    found = await connect(lab.endpoint("h1", user="rack"), DriverSettings())
    yield found
    await found.close()


@pytest.fixture
def folder(lab: Lab) -> Iterator[str]:
    path = f"/var/lib/rackflow-test/{uuid.uuid4().hex}"
    lab.run("h1", f"mkdir -p -m 777 {path}")
    yield path
    lab.run("h1", f"rm -rf {path}")


class TestSshTransportOfAUser(TransportContract):
    """The same by a user who has to ask sudo."""

    @pytest.fixture
    def rig(self, transport: Transport, folder: str) -> TransportRig:
        return TransportRig(transport, folder)


def running(lab: Lab, mark: str, host: str = "h1") -> str:
    """Return the processes on a host whose command line has mark in it, but for the one that looks."""
    return lab.run(host, f"pgrep -af '[{mark[0]}]{mark[1:]}' || true")


async def gone(lab: Lab, mark: str, within_s: float = 8, host: str = "h1") -> None:
    """Wait until none is left."""
    async with asyncio.timeout(within_s):
        while await asyncio.to_thread(running, lab, mark, host):
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("sudo", [False, True])
async def test_a_stream_left_early_leaves_no_process(lab: Lab, transport: Transport, sudo: bool) -> None:
    mark = uuid.uuid4().hex
    stream = transport.read(["sh", "-c", "cat /dev/zero", mark], sudo=sudo)
    await anext(stream)
    assert running(lab, mark)
    begin = time.monotonic()
    await stream.aclose()  # type: ignore[attr-defined]
    assert time.monotonic() - begin < 2.5
    await gone(lab, mark)


@pytest.mark.parametrize("sudo", [False, True])
async def test_a_cut_content_is_not_taken_for_whole(
    lab: Lab, transport: Transport, folder: str, sudo: bool
) -> None:  # fmt: skip
    argv = ["sh", "-c", 'cat >"$1"; mv "$1" "$1.whole"', "sh", f"{folder}/file"]
    with pytest.raises(Broken):
        await transport.write(chunks(bytes(2**20), Broken()), argv, sudo=sudo)
    assert await cancelled_after(transport.write(endless(), argv, sudo=sudo), 0.5)
    await gone(lab, folder)
    assert lab.run("h1", f"ls {folder}").split() == ["file"]


async def test_much_on_stderr_holds_nothing_up(transport: Transport) -> None:
    script = "head -c 8000000 /dev/zero | tr '\\0' e >&2; cat; echo end"
    got = [chunk async for chunk in transport.read(["sh", "-c", script], timeout_s=20)]
    assert b"".join(got) == b"end\n"
    found = await transport.write(chunks(bytes(2**22)), ["sh", "-c", script], timeout_s=20)
    assert found.stdout.endswith("end\n")
    assert set(found.stderr) == {"e"}
    with pytest.raises(HostFault) as caught:
        await transport.write(chunks(b"x"), ["sh", "-c", f"{script}; echo bad >&2; exit 3"], timeout_s=20)
    assert caught.value.evidence["exit_code"] == 3
    assert str(caught.value.evidence["stderr"]).endswith("bad")


async def test_who_takes_slowly_slows_the_command_down(lab: Lab, transport: Transport, folder: str) -> None:
    script = 'head -c 100000000 /dev/zero; touch "$1/done"'
    stream = transport.read(["sh", "-c", script, "sh", folder])
    got = len(await anext(stream))
    await asyncio.sleep(1)
    assert lab.run("h1", f"ls {folder}") == ""
    got += sum([len(chunk) async for chunk in stream])
    assert got == 100_000_000
    assert lab.run("h1", f"ls {folder}") == "done\n"


async def test_a_command_that_takes_slowly_slows_the_content_down(transport: Transport) -> None:
    given = 0

    async def content() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 2**17
            yield bytes(2**17)

    with pytest.raises(Unreachable):
        await transport.write(content(), ["sleep", "30"], timeout_s=1.5)
    assert 2**17 < given < 2**23


SSHD = """p=$$
until [ "$(cat /proc/$p/comm)" = sshd ]; do p=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$p/status); done
echo "$p"
"""


async def sshd_of(transport: Transport) -> str:
    """Return the pid of the sshd that serves this connection."""
    return (await transport.run(["sh", "-c", SSHD])).stdout.strip()


async def test_a_killed_connection(lab: Lab, transport: Transport, folder: str) -> None:
    """kill -9 of its sshd on the host: both ends notice."""
    pid = await sshd_of(transport)
    stream = transport.read(["sh", "-c", "cat /dev/zero", folder])
    await anext(stream)
    writing = asyncio.ensure_future(transport.write(endless(), ["sh", "-c", 'cat >"$1"', "sh", f"{folder}/file"]))
    await asyncio.sleep(0.3)
    lab.run("h1", f"kill -9 {pid}")
    with pytest.raises(Unreachable):
        await asyncio.wait_for(writing, 10)
    with pytest.raises(Unreachable):
        async for _ in stream:
            pass
    await gone(lab, folder)
