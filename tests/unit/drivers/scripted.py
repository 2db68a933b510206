"""A transport that answers commands as a test says, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NoReturn

from drivers.transport.base import Endpoint, Progress, Result, Session, Transport

Answer = tuple[int, str, str]  # exit code, stdout, stderr


def _unexpected(what: str) -> NoReturn:
    raise AssertionError(f"{what} was not expected")


class Scripted(Transport):
    """answer: from argv to exit code, stdout, stderr. Only commands are expected."""

    def __init__(self, answer: Callable[[Sequence[str]], Answer]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, ...]] = []

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("odd", "192.0.2.7")

    def is_alive(self) -> bool:
        return True

    async def run(
        self, argv: Sequence[str], *, timeout_s: float = 60.0, stdin: bytes | None = None, sudo: bool = False,
        check: bool = True,
    ) -> Result:  # fmt: skip
        self.asked.append(tuple(argv))
        return Result(tuple(argv), *self.answer(argv))

    async def put(
        self, source: Path | bytes, target: str, *, mode: int = 0o644, resume: bool = False, sudo: bool = False,
        progress: Progress | None = None, timeout_s: float = 600.0,
    ) -> None:  # fmt: skip
        _unexpected("put")

    async def get(self, source: str, *, sudo: bool = False, max_bytes: int = 2**24, timeout_s: float = 60.0) -> bytes:
        _unexpected("get")

    async def forward(self, remote_socket: str) -> Path:
        _unexpected("forward")

    def cut(self, remote_socket: str) -> None:
        _unexpected("cut")

    def session(self, argv: Sequence[str], *, sudo: bool = False) -> AbstractAsyncContextManager[Session]:
        _unexpected("session")

    async def close(self) -> None:
        _unexpected("close")
