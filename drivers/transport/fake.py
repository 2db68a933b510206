"""A transport to a simulated host: files in memory, commands answered by a table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from core.errors import HostFault, NotFound, Unreachable, Unsupported
from core.settings import DriverSettings
from drivers.fake_files import pieces
from drivers.fake_world import Command, FakeHost, world
from drivers.hosts import HostFacts
from drivers.transport.base import ByteStream, Endpoint, Progress, Result, Session, Transport, socket_name
from drivers.transport.fake_session import FakeSession, FakeStream, begin_script, conflict_code, lock_of


def _echo(host: FakeHost, argv: Sequence[str], stdin: bytes) -> Result:
    return Result(tuple(argv), 0, " ".join(argv[1:]) + "\n", "")


def _cat(host: FakeHost, argv: Sequence[str], stdin: bytes) -> Result:
    if len(argv) == 1:
        return Result(tuple(argv), 0, stdin.decode("utf-8", "replace"), "")
    found = {path: host.files_at(path).get(path) for path in argv[1:]}
    missing = [path for path, data in found.items() if data is None]
    text = "".join(data.decode("utf-8", "replace") for data in found.values() if data is not None)
    errors = "".join(f"cat: {path}: No such file or directory\n" for path in missing)
    return Result(tuple(argv), 1 if missing else 0, text, errors)


def _rm(host: FakeHost, argv: Sequence[str], stdin: bytes) -> Result:
    for path in argv[1:]:
        host.files_at(path).pop(path, None)
    return Result(tuple(argv), 0, "", "")


def _tee(host: FakeHost, argv: Sequence[str], stdin: bytes) -> Result:
    for path in argv[1:]:
        host.files_at(path)[path] = stdin
    return Result(tuple(argv), 0, stdin.decode("utf-8", "replace"), "")


def _kill(host: FakeHost, argv: Sequence[str], stdin: bytes) -> Result:
    end = host.running.pop(int(argv[-1]), None) if argv[-1].isdigit() else None
    if end is None:
        return Result(tuple(argv), 1, "", f"kill: ({argv[-1]}) - No such process\n")
    end(137)
    return Result(tuple(argv), 0, "", "")


COMMANDS: dict[str, Command] = {
    "echo": _echo,
    "cat": _cat,
    "rm": _rm,
    "kill": _kill,
    "tee": _tee,
    "hostname": lambda host, argv, stdin: Result(tuple(argv), 0, host.name + "\n", ""),
    "true": lambda host, argv, stdin: Result(tuple(argv), 0, "", ""),
    "false": lambda host, argv, stdin: Result(tuple(argv), 1, "", ""),
}  # more in FakeHost.commands


class FakeTransport(Transport):
    """One connection to one simulated host; it dies when the host does."""

    def __init__(self, endpoint: Endpoint, boots: int) -> None:
        self._endpoint = endpoint
        self._boots = boots
        self._closed = False
        self._sessions: set[FakeSession] = set()
        self._streams: set[FakeStream] = set()

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def is_alive(self) -> bool:
        """Say whether a call could still succeed."""
        host = world.hosts.get(self._endpoint.name)
        return not self._closed and host is not None and host.alive and host.boots == self._boots

    def require_alive(self, verb: str) -> None:
        """Look once more in the middle of a verb. Raise Unreachable."""
        if self._closed:
            raise self._late(f"connection closed during {verb}")
        world.reached(self._endpoint.name, self._boots, verb)

    @asynccontextmanager
    async def call(self, verb: str) -> AsyncIterator[FakeHost]:
        """Go to the host for one verb, as the other fake drivers do through this connection."""
        if self._closed:
            raise self._late("connection closed")
        async with world.call(self._endpoint.name, self._boots, verb) as host:
            yield host

    async def run(
        self, argv: Sequence[str], *, timeout_s: float = 60.0, stdin: bytes | None = None, sudo: bool = False,
        check: bool = True,
    ) -> Result:
        try:
            async with asyncio.timeout(timeout_s), self.call("transport.run") as host:
                result = await self._answer(host, argv, stdin or b"")
                if not self.is_alive():
                    raise self._late(f"connection lost during {argv[0]}")
        except TimeoutError as error:
            raise self._late(f"{argv[0]}: no end within {timeout_s} s") from error
        if check and result.exit_code != 0:
            raise self._failed(result)
        return result

    def _failed(self, result: Result) -> HostFault:
        return HostFault(
            f"host {self._endpoint.name}: {result.argv[0]} ended with {result.exit_code}: {result.stderr}",
            f"host/{self._endpoint.name}", {"argv": list(result.argv), "exit_code": result.exit_code},
        )

    def _late(self, what: str) -> Unreachable:
        return Unreachable(f"host {self._endpoint.name}: {what}", f"host/{self._endpoint.name}")

    async def _answer(self, host: FakeHost, argv: Sequence[str], stdin: bytes) -> Result:
        host.ran.append(tuple(argv))
        del host.ran[:-1000]
        if argv[0] == "sleep":
            for _ in range(int(float(argv[1]) * 20)):
                if self.is_alive():
                    await asyncio.sleep(0.05)
            return Result(tuple(argv), 0, "", "")
        command = host.commands.get(argv[0]) or COMMANDS.get(argv[0])
        if command is None:
            return Result(tuple(argv), 127, "", f"{argv[0]}: command not found\n")
        return command(host, argv, stdin)

    async def put(
        self, source: Path | bytes, target: str, *, mode: int = 0o644, resume: bool = False,
        sudo: bool = False, progress: Progress | None = None, timeout_s: float = 600.0,
    ) -> None:
        async with self.call("transport.put") as host:
            data = source if isinstance(source, bytes) else await asyncio.to_thread(source.read_bytes)
            host.files_at(target)[target] = data
            if progress is not None:
                progress(len(data), len(data))

    async def get(
        self, source: str, *, sudo: bool = False, max_bytes: int = 2**24, timeout_s: float = 60.0
    ) -> bytes:
        async with self.call("transport.get") as host:
            data = host.files_at(source).get(source)
            if data is None:
                raise NotFound(f"host {host.name}: no file {source}", f"host/{host.name}")
            return data[:max_bytes]

    async def read(
        self, argv: Sequence[str], *, sudo: bool = False, timeout_s: float = 600.0
    ) -> AsyncIterator[bytes]:
        try:
            async with self.call("transport.read") as host:
                async with asyncio.timeout(timeout_s):
                    result = await self._answer(host, argv, b"")
                data = b"".join(host.files_at(p).get(p, b"") for p in argv[1:]) if argv[0] == "cat" else b""
                async with aclosing(pieces(data or result.stdout.encode())) as parts:
                    async for part in parts:
                        self.require_alive("transport.read")
                        yield part
                self.require_alive("transport.read")
        except TimeoutError as error:
            raise self._late(f"{argv[0]}: no end within {timeout_s} s") from error
        if result.exit_code != 0:
            raise self._failed(result)

    async def write(
        self, content: AsyncIterator[bytes], argv: Sequence[str], *, sudo: bool = False, timeout_s: float = 600.0
    ) -> Result:
        data = bytearray()
        try:
            async with asyncio.timeout(timeout_s), self.call("transport.write") as host:
                async for part in content:
                    self.require_alive("transport.write")
                    data += part
                result = await self._answer(host, argv, bytes(data))
        except TimeoutError as error:
            raise self._late(f"{argv[0]}: no end within {timeout_s} s") from error
        if result.exit_code != 0:
            raise self._failed(result)
        return result

    @asynccontextmanager
    async def connect(self, where: int | str) -> AsyncIterator[ByteStream]:
        """Reach a socket that FakeHost.listening names: it greets, then gives back what is written."""
        async with self.call("transport.connect_port") as host:
            if where not in host.listening:
                raise HostFault(f"host {host.name}: nobody listens on {socket_name(where)}", f"host/{host.name}")
            greeting = host.listening[where]
        async with self.stream(greeting, lambda data: data) as stream:
            yield stream

    @asynccontextmanager
    async def stream(self, greeting: bytes, answer: Callable[[bytes], bytes]) -> AsyncIterator[FakeStream]:
        """Hold a connection to something simulated."""
        stream = FakeStream(self._endpoint.name, self.is_alive, greeting, answer)
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)
            stream.close()

    async def forward(self, remote_socket: str) -> Path:
        raise Unsupported("a simulated host has no sockets", f"host/{self._endpoint.name}")

    def cut(self, remote_socket: str) -> None:
        """There are no forwarded sockets to cut."""

    @asynccontextmanager
    async def session(self, argv: Sequence[str], *, sudo: bool = False) -> AsyncIterator[Session]:
        """Hold a command open. `flock [options] FILE …` holds that lock of the host, as the real one does."""
        async with self.call("transport.session") as host:
            host.ran.append(tuple(argv))
        session = FakeSession(self._endpoint.name, self.is_alive)
        lock, argv = lock_of(host, argv)
        if lock is not None and not await self._take(lock, argv):
            session.end(conflict_code(argv))
            yield session
            return
        if lock is not None:
            session.at_end = lock.release
        pid = host.begin(session.end)
        self._sessions.add(session)
        for line in begin_script(host, pid, argv):
            session.say(line)
        try:
            yield session
        finally:
            host.running.pop(pid, None)
            self._sessions.discard(session)
            session.end(0)

    async def _take(self, lock: asyncio.Lock, argv: Sequence[str]) -> bool:
        if lock.locked() and {"-n", "--nonblock"} & set(argv):
            return False
        while self.is_alive():
            try:
                return await asyncio.wait_for(lock.acquire(), 0.1)
            except TimeoutError:
                continue
        raise self._late("connection lost")

    async def facts(self) -> HostFacts:
        """Return what `gather_facts` would find on a machine of that size."""
        async with self.call("transport.run") as host:
            return facts_of(host, self._endpoint.address)

    async def close(self) -> None:
        self._closed = True
        for session in list(self._sessions):
            session.end(255)
        for stream in list(self._streams):
            stream.close()


def facts_of(host: FakeHost, address: str) -> HostFacts:
    """Return a simulated host's facts."""
    nic = {"name": "eth0", "mac": "52:54:00:00:00:01", "addresses": [f"{address}/24"], "state": "up",
           "speed_mbps": 10_000, "bridge": ""}  # fmt: skip
    return HostFacts(
        hostname=host.name, machine_id=f"fake-{host.name}", architecture="x86_64", os="Simulated 1",
        kernel="0.0-fake", cpus=host.cpus, cpu_model="simulated", memory_mib=host.memory_mib,
        disks=[{"name": "vda", "size_mib": host.disk_mib}], nics=[nic], management_nic="eth0",
        virtualisation={"simulated": True}, versions={"fake": "1"}, kinds=["fake"],
        boot_id=str(host.boots), **host.hardware,
    )


async def connect(endpoint: Endpoint, settings: DriverSettings) -> FakeTransport:
    """Connect to a simulated host. Raise Unreachable, or what was injected."""
    async with world.call(endpoint.name, 0, "transport.connect") as host:
        return FakeTransport(endpoint, host.boots)
