"""Which commands of one SSH connection run at once, and which wait.

There are fewer channels than sshd opens sessions. What lasts (streams, commands with a late deadline, sessions) has a
share of them, so that a short command finds one. What is written and what is read is counted apart: who copies from
host to host holds a channel at the one while it waits for one at the other, where somebody may copy the other way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum, auto

from core.errors import Busy
from drivers.transport.base import Endpoint
from drivers.transport.errors import subject_of

_LONG_S = 120.0  # a command with a later deadline may keep its channel for long


class Kind(Enum):
    """What a channel is wanted for."""

    SHORT = auto()
    LONG = auto()
    READ = auto()
    WRITE = auto()
    SESSION = auto()


# A worker has one session with a host, its lock; consoles are opened by a process that copies nothing.
_SHARES = {Kind.LONG: 0.25, Kind.READ: 0.25, Kind.WRITE: 0.25, Kind.SESSION: 0.5}


def kind_of(timeout_s: float) -> Kind:
    """Return what kind of command has such a deadline."""
    return Kind.LONG if timeout_s > _LONG_S else Kind.SHORT


class Channels:
    """The channels of one connection. number: how many there are in all."""

    def __init__(self, endpoint: Endpoint, number: int) -> None:
        self._endpoint = endpoint
        self._all = asyncio.Semaphore(number)
        self._shares = {kind: asyncio.Semaphore(max(1, int(number * share))) for kind, share in _SHARES.items()}
        self._under_way: list[str] = []

    async def take(self, kind: Kind, argv: Sequence[str], wait_s: float) -> Callable[[], None]:
        """Wait for a channel; return what frees it again. Raise Busy if that takes longer than wait_s."""
        taken: list[asyncio.Semaphore] = []
        try:
            async with asyncio.timeout(wait_s):
                for semaphore in (*filter(None, [self._shares.get(kind)]), self._all):
                    await semaphore.acquire()
                    taken.append(semaphore)
        except BaseException as error:
            _release(taken)
            if isinstance(error, TimeoutError):
                raise self._busy(argv, wait_s) from error
            raise
        self._under_way.append(argv[0])

        def free() -> None:
            self._under_way.remove(argv[0])
            _release(taken)

        return free

    def _busy(self, argv: Sequence[str], wait_s: float) -> Busy:
        name = self._endpoint.name
        return Busy(
            f"{len(self._under_way)} commands are under way on {name}: {argv[0]} got no channel within {wait_s:g} s",
            subject_of(self._endpoint),
            {"argv": list(argv), "under_way": sorted(self._under_way), "waited_s": wait_s},
            "wait until they have ended, or see what the host is busy with",
        )


def _release(taken: Sequence[asyncio.Semaphore]) -> None:
    for semaphore in taken:
        semaphore.release()
