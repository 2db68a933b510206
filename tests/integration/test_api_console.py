"""Consoles over the real API, a real WebSocket and simulated hosts; and the command line at one."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from analytics.client import AnalyticsClient
from api.app import create_app
from api.context import Context
from api.tickets import VALID_S
from control import access
from core.states import Verb
from drivers.fake_world import world
from tests.integration.line import Line

WEB = {"instances": [{"name": "web", "image": "vm", "memory": "128MiB"}]}


@dataclass
class Served:
    """The API, with the instance web deployed."""

    line: Line
    context: Context
    url: str
    token: str
    http: httpx.AsyncClient

    async def ticket(self, kind: str = "serial", token: str = "") -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return await self.http.post("/instances/web/console", json={"kind": kind}, headers=headers)

    async def open(self, kind: str = "serial") -> ClientConnection:
        answer = await self.ticket(kind)
        assert answer.status_code == 201, answer.text
        return await self.connect(answer.json()["path"])

    async def connect(self, path: str) -> ClientConnection:
        return await connect("ws" + self.url.removeprefix("http") + path, proxy=None, compression=None)

    def streams(self) -> int:
        """Return how many consoles are open on the host, as the API's connection has it."""
        [entry] = self.context.pool._open.values()
        return len(entry.transport._streams)  # type: ignore[attr-defined]


@pytest_asyncio.fixture
async def served(line: Line) -> AsyncIterator[Served]:
    await line.run(Verb.DEPLOY, WEB)
    token = line.store.write_now(access.ensure_admin) or ""
    app = create_app(line.settings, line.store, AnalyticsClient(line.settings.paths.analytics_socket), lambda: None)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient(base_url=f"{url}/v1") as http:
        yield Served(line, app.state.context, url, token, http)
    server.should_exit = True
    await serving


async def test_bytes_go_both_ways(served: Served) -> None:
    async with await served.open() as console:
        assert b"login: " in await asyncio.wait_for(console.recv(decode=False), 5)
        for data in (b"\x00\xff\r\n", b"x" * 100_000):
            await console.send(data)
            seen = b""
            while len(seen) < len(data):
                seen += await asyncio.wait_for(console.recv(decode=False), 5)
            assert seen == data
        await console.send("text as well")
        assert await asyncio.wait_for(console.recv(decode=False), 5) == b"text as well"
        assert served.streams() == 1
    await gone(served)


async def gone(served: Served) -> None:
    deadline = time.monotonic() + 5
    while served.streams():
        assert time.monotonic() < deadline, "the console on the host stayed open"
        await asyncio.sleep(0.02)


async def test_a_screen_speaks_rfb(served: Served) -> None:
    async with await served.open("vnc") as screen:
        assert await asyncio.wait_for(screen.recv(decode=False), 5) == b"RFB 003.008\n"


async def test_a_ticket_is_good_once_and_not_for_long(served: Served) -> None:
    path = (await served.ticket()).json()["path"]
    async with await served.connect(path):
        with pytest.raises(InvalidStatus) as refused:
            await served.connect(path)
    assert refused.value.response.status_code == 403
    assert b"it was used" in (refused.value.response.body or b"")
    late = (await served.ticket()).json()["path"]
    served.context.tickets.clock = lambda: time.monotonic() + VALID_S
    for wrong in (late, "/v1/console/guessed"):
        with pytest.raises(InvalidStatus) as refused:
            await served.connect(wrong)
        assert refused.value.response.status_code == 403


async def test_a_ticket_opens_what_its_owner_may_see(served: Served) -> None:
    bob = served.line.store.write_now(lambda c: access.new_token(c, access.named(c, "bob"), "test"))
    assert (await served.ticket(token=bob)).status_code == 404
    path = (await served.ticket()).json()["path"]
    await served.line.run(Verb.DELETE, {"instances": ["web"]})
    with pytest.raises(InvalidStatus) as refused:
        await served.connect(path)
    assert refused.value.response.status_code == 409


async def test_what_is_off_has_no_console(served: Served) -> None:
    path = (await served.ticket()).json()["path"]
    await served.line.run(Verb.SHUTDOWN, {"instances": ["web"], "grace_s": 0})
    answer = await served.ticket()
    assert (answer.status_code, answer.json()["fix"]) == (409, "rackflow instance start web")
    with pytest.raises(InvalidStatus) as refused:  # stopped between ticket and use
        await served.connect(path)
    assert refused.value.response.status_code == 409


async def test_both_sides_are_closed_when_the_host_goes(served: Served) -> None:
    console = await served.open()
    await console.recv()
    world.crash(served.line.instance("web")["host"])
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(console.recv(), 5)
    await gone(served)


class Flood:
    """A host that says more than anybody reads, and takes nothing."""

    said = 0

    async def read(self, n: int = 65536) -> bytes:
        await asyncio.sleep(0)
        self.said += n
        return b"z" * n

    async def write(self, data: bytes) -> None:
        await asyncio.Event().wait()


async def test_neither_side_is_read_faster_than_the_other_takes_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, sent, most = Flood(), 0, 256 * 2**20  # more than the buffers of sockets hold

    @asynccontextmanager
    async def opened(ctx: Context, ticket: str) -> AsyncIterator[Flood]:
        yield host

    async def flood() -> None:
        nonlocal sent
        while sent < most:
            await client.send(b"z" * 65536)
            sent += 65536

    monkeypatch.setattr("api.console.opened", opened)
    client = await served.connect("/v1/console/any")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(flood(), 2)
    said = host.said
    await asyncio.sleep(0.3)
    assert (host.said, said < most) == (said, True)
    client.transport.abort()


def rackflow(served: Served, *argv: str, **kwargs: Any) -> subprocess.Popen[bytes]:
    env = {**os.environ, "RACKFLOW_URL": served.url, "RACKFLOW_TOKEN": served.token}
    return subprocess.Popen([sys.executable, "-m", "rackflow_cli.main", *argv], env=env, **kwargs)


async def test_piped_input_of_the_command_line(served: Served) -> None:
    pipe = subprocess.PIPE
    process = rackflow(served, "console", "web", "--linger", "0.3", stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = await asyncio.to_thread(process.communicate, b"uname -a\n", 30)
    assert (process.returncode, err) == (0, b"")
    assert out.endswith(b"login: uname -a\n")
    await gone(served)


async def test_a_terminal_of_the_command_line(served: Served) -> None:
    master, slave = pty.openpty()
    process = rackflow(served, "console", "web", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)

    def talk() -> bytes:
        seen, typed = b"", 0
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            if not select.select([master], [], [], 0.1)[0]:
                continue
            try:
                seen += os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            if b"login: " in seen and typed == 0:
                os.write(master, b"\x03hi")  # Ctrl-C belongs to the guest
                typed = 1
            elif b"\x03hi" in seen and typed == 1:
                os.write(master, b"\x1d")
                typed = 2
        return seen

    seen = await asyncio.to_thread(talk)
    assert await asyncio.to_thread(process.wait, 10) == 0, seen
    assert b"Ctrl-] leaves it" in seen
    os.close(master)


async def test_a_screen_behind_a_local_port(served: Served) -> None:
    process = rackflow(served, "console", "web", "--vnc", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    address = (await asyncio.to_thread(process.stdout.readline)).decode().strip()
    host, _, port = address.partition(":")
    assert host == "127.0.0.1"

    def look() -> bytes:
        with socket.create_connection((host, int(port)), timeout=10) as viewer:
            return viewer.recv(100)

    for _ in range(2):  # one ticket for each connection
        assert await asyncio.to_thread(look) == b"RFB 003.008\n"
    await gone(served)
    process.send_signal(2)
    assert await asyncio.to_thread(process.wait, 10) == 0
    await asyncio.to_thread(process.communicate)


async def test_a_ticket_to_a_screen_elsewhere(served: Served) -> None:
    """For the hypervisor's own viewers: the address alone on standard output, what it is good for beside it."""
    for form in ((), ("-o", "json")):
        process = rackflow(
            served, "console", "web", "--ticket", *form, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await asyncio.to_thread(process.communicate, None, 30)
        assert process.returncode == 0, err
        url = json.loads(out)["url"] if form else out.decode().strip()
        assert url.startswith("wss://f0.invalid/ticket/")
        assert (b"once" in err) is (form == ())


async def test_refusals_reach_the_command_line(served: Served) -> None:
    await served.line.run(Verb.SHUTDOWN, {"instances": ["web"], "grace_s": 0})
    for argv, code in ((("console", "web"), 5), (("console", "none"), 3), (("console", "web", "--vnc"), 5),
                       (("console", "web", "--ticket"), 5)):
        process = rackflow(served, *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        _, err = await asyncio.to_thread(process.communicate, None, 30)
        assert process.returncode == code, err
        assert err.startswith(b"error: ")
