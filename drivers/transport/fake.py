"""A transport to a simulated host: files in memory, commands answered by a table."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from core.errors import HostFault, NotFound, Unreachable, Unsupported
from core.settings import DriverSettings
from drivers.fake_world import Command, FakeHost, world
from drivers.hosts import HostFacts
from drivers.transport.base import Endpoint, Progress, Result, Session, Transport


def _echo(host: FakeHost, argv: Sequence[str], stdin: bytes) -> Result:
    return Result(tuple(argv), 0, " ".join(argv[1:]) + "\n", "")


def _cat(host: FakeHost, argv: Sequence[str], stdin: bytes) -> Result:
    if len(argv) == 1:
        return Result(tuple(argv), 0, stdin.decode(), "")
    missing = [path for path in argv[1:] if path not in host.files]
    text = "".join(host.files[path].decode() for path in argv[1:] if path in host.files)
    errors = "".join(f"cat: {path}: No such file or directory\n" for path in missing)
    return Result(tuple(argv), 1 if missing else 0, text, errors)


def _rm(host: FakeHost, argv: Sequence[str], stdin: bytes) -> Result:
    for path in argv[1:]:
        host.files.pop(path, None)
    return Result(tuple(argv), 0, "", "")


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

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def is_alive(self) -> bool:
        """Say whether a call could still succeed."""
        host = world.hosts.get(self._endpoint.name)
        return not self._closed and host is not None and host.alive and host.boots == self._boots

    @asynccontextmanager
    async def call(self, verb: str) -> AsyncIterator[FakeHost]:
        """Go to the host for one verb, as the other fake drivers do through this connection."""
        if self._closed:
            raise Unreachable(f"host {self._endpoint.name}: connection closed", f"host/{self._endpoint.name}")
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
            raise HostFault(
                f"host {self._endpoint.name}: {argv[0]} ended with {result.exit_code}: {result.stderr}",
                f"host/{self._endpoint.name}", {"argv": list(argv), "exit_code": result.exit_code},
            )
        return result

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
            host.files[target] = data
            if progress is not None:
                progress(len(data), len(data))

    async def get(
        self, source: str, *, sudo: bool = False, max_bytes: int = 2**24, timeout_s: float = 60.0
    ) -> bytes:
        async with self.call("transport.get") as host:
            if source not in host.files:
                raise NotFound(f"host {host.name}: no file {source}", f"host/{host.name}")
            return host.files[source][:max_bytes]

    async def forward(self, remote_socket: str) -> Path:
        raise Unsupported("a simulated host has no sockets", f"host/{self._endpoint.name}")

    def cut(self, remote_socket: str) -> None:
        """There are no forwarded sockets to cut."""

    @asynccontextmanager
    async def session(self, argv: Sequence[str], *, sudo: bool = False) -> AsyncIterator[Session]:
        """Hold a command open. `flock [options] FILE …` holds that lock of the host, as the real one does."""
        async with self.call("transport.session") as host:
            host.ran.append(tuple(argv))
        session = FakeSession(self)
        lock, argv = _lock_of(host, argv)
        if lock is not None and not await self._take(lock, argv):
            session.end(_conflict_code(argv))
            yield session
            return
        if lock is not None:
            session.at_end = lock.release
        pid = host.begin(session.end)
        self._sessions.add(session)
        for line in _begin_script(host, pid, argv):
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


def _lock_of(host: FakeHost, argv: Sequence[str]) -> tuple[asyncio.Lock | None, Sequence[str]]:
    """Return the lock that argv takes by flock, if any."""
    words = list(argv)
    path = next((w for w in words[1:] if w.startswith("/")), "") if words[0] == "flock" else ""
    return (host.locks.setdefault(path, asyncio.Lock()) if path else None), words


def _conflict_code(argv: Sequence[str]) -> int:
    words = list(argv)
    option = "--conflict-exit-code"
    return int(words[words.index(option) + 1]) if option in words else 1


def _begin_script(host: FakeHost, pid: int, argv: Sequence[str]) -> list[str]:
    """Do what a held `sh -c SCRIPT NAME $1 …` does first: each `echo WORDS [> FILE]`; return the lines printed."""
    words = list(argv)
    if "-c" not in words or "sh" not in words:
        return []
    script, _, *given = [*words[words.index("-c") + 1 :], ""]
    names = {"$$": str(pid), **{f"${n}": value for n, value in enumerate(given, 1)}}
    printed = []
    for part in script.split("&&"):
        text, _, target = re.sub(r"\$[$0-9]", lambda m: names.get(m[0], ""), part).partition(">")
        if not text.split() or text.split()[0] != "echo":
            break
        line = " ".join(shlex.split(text)[1:])
        if target:
            host.files[shlex.split(target)[0]] = f"{line}\n".encode()
        else:
            printed.append(line)
    return printed


class FakeSession(Session):
    """A held command that gives back each line written, until it is closed or the host is gone."""

    def __init__(self, transport: FakeTransport) -> None:
        self._transport = transport
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._exit_code: int | None = None
        self.at_end: Callable[[], None] = lambda: None

    def end(self, exit_code: int) -> None:
        """Let the command end; the first exit code counts. A lock that it held is free at once."""
        if self._exit_code is None:
            self._exit_code = exit_code
            self.at_end()

    def say(self, line: str) -> None:
        """Let the command print a line."""
        self._lines.put_nowait(line)

    async def lines(self) -> AsyncIterator[str]:
        while self.is_alive():
            try:
                line = await asyncio.wait_for(self._lines.get(), 0.1)
            except TimeoutError:
                continue
            yield line

    async def write(self, data: bytes) -> None:
        if not self.is_alive():
            raise Unreachable("session lost", f"host/{self._transport.endpoint.name}")
        for line in data.decode().splitlines():
            self.say(line)

    async def wait(self) -> int:
        async for _ in self.lines():
            pass
        return 255 if self._exit_code is None else self._exit_code

    def is_alive(self) -> bool:
        return self._exit_code is None and self._transport.is_alive()


def facts_of(host: FakeHost, address: str) -> HostFacts:
    """Return a simulated host's facts."""
    nic = {"name": "eth0", "mac": "52:54:00:00:00:01", "addresses": [f"{address}/24"], "state": "up",
           "speed_mbps": 10_000, "bridge": ""}  # fmt: skip
    return HostFacts(
        hostname=host.name, machine_id=f"fake-{host.name}", architecture="x86_64", os="Simulated 1",
        kernel="0.0-fake", cpus=host.cpus, cpu_model="simulated", memory_mib=host.memory_mib,
        disks=[{"name": "vda", "size_mib": host.disk_mib}], nics=[nic], management_nic="eth0",
        virtualisation={"simulated": True}, versions={"fake": "1"}, kinds=["fake"],
    )


async def connect(endpoint: Endpoint, settings: DriverSettings) -> FakeTransport:
    """Connect to a simulated host. Raise Unreachable, or what was injected."""
    async with world.call(endpoint.name, 0, "transport.connect") as host:
        return FakeTransport(endpoint, host.boots)
