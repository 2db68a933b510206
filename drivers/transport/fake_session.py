"""Held commands and open connections of a simulated host."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Callable, Sequence

from core.errors import Unreachable
from drivers.fake_things import FakeHost
from drivers.transport.base import ByteStream, Session

Alive = Callable[[], bool]


def lock_of(host: FakeHost, argv: Sequence[str]) -> tuple[asyncio.Lock | None, Sequence[str]]:
    """Return the lock that argv takes by flock, if any."""
    words = list(argv)
    path = next((w for w in words[1:] if w.startswith("/")), "") if words[0] == "flock" else ""
    return (host.locks.setdefault(path, asyncio.Lock()) if path else None), words


def conflict_code(argv: Sequence[str]) -> int:
    words = list(argv)
    option = "--conflict-exit-code"
    return int(words[words.index(option) + 1]) if option in words else 1


def begin_script(host: FakeHost, pid: int, argv: Sequence[str]) -> list[str]:
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
            host.files_at(shlex.split(target)[0])[shlex.split(target)[0]] = f"{line}\n".encode()
        else:
            printed.append(line)
    return printed


class FakeStream(ByteStream):
    """Bytes both ways with something simulated that answers, until it is closed or the host is gone."""

    def __init__(self, name: str, alive: Alive, greeting: bytes, answer: Callable[[bytes], bytes]) -> None:
        self._name, self._alive, self._answer = name, alive, answer
        self._waiting = bytearray(greeting)
        self._more = asyncio.Event()
        self._closed = False

    async def read(self, n: int = 65536) -> bytes:
        while not self._waiting and not self._closed:
            if not self._alive():
                return b""
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), 0.1)
            except TimeoutError:
                continue
        found = bytes(self._waiting[:n])
        del self._waiting[:n]
        return found

    async def write(self, data: bytes) -> None:
        if self._closed or not self._alive():
            raise Unreachable(f"{self._name}: connection lost", f"host/{self._name}")
        self._waiting += self._answer(data)
        self._more.set()

    def close(self) -> None:
        """End it from this side."""
        self._closed = True
        self._more.set()


class FakeSession(Session):
    """A held command that gives back each line written, until it is closed or the host is gone."""

    def __init__(self, name: str, alive: Alive) -> None:
        self._name, self._alive = name, alive
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._rest = b""
        self._exit_code: int | None = None
        self.at_end: Callable[[], None] = lambda: None

    def end(self, exit_code: int) -> None:
        """Let the command end; the first exit code counts. A lock that it held is free at once."""
        if self._exit_code is None:
            self._exit_code = exit_code
            self.at_end()

    def say(self, line: str) -> None:
        """Let the command print a line."""
        self._lines.put_nowait(f"{line}\n")

    async def _printed(self) -> AsyncIterator[str]:
        while self.is_alive():
            try:
                text = await asyncio.wait_for(self._lines.get(), 0.1)
            except TimeoutError:
                continue
            yield text

    async def lines(self) -> AsyncIterator[str]:
        async for text in self._printed():
            yield text.rstrip("\n")

    async def read(self, n: int = 65536) -> bytes:
        if not self._rest:
            self._rest = (await anext(self._printed(), "")).encode()
        found, self._rest = self._rest[:n], self._rest[n:]
        return found

    async def write(self, data: bytes) -> None:
        if not self.is_alive():
            raise Unreachable("session lost", f"host/{self._name}")
        for text in data.decode("utf-8", "replace").splitlines(keepends=True):
            self._lines.put_nowait(text)

    async def wait(self) -> int:
        async for _ in self.lines():
            pass
        return 255 if self._exit_code is None else self._exit_code

    def is_alive(self) -> bool:
        return self._exit_code is None and self._alive()
