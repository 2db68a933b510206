"""How many machines may be spoken to through one BMC, or one Ironic, at a time: as many as it bears.

It begins with a few; each good answer allows one more, until the first trouble. From then on a whole round of good
answers allows one more, and silence or "busy" halves the number: additive increase, multiplicative decrease (as in
RFC 5681). A BMC of one machine is never limited by this; one that stands before hundreds is found out about.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit

from core.errors import Retryable

FIRST, LEAST, MOST = 8, 1, 256


@dataclass
class BmcSlots:
    """Those of one address. limit: at present. was_in_trouble: from then on it grows slowly."""

    limit: float = FIRST
    busy: int = 0
    was_in_trouble: bool = False
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    async def __aenter__(self) -> None:
        """Wait for a slot and hold it."""
        while self.busy >= int(self.limit):
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            except asyncio.CancelledError:
                self._let_go_on()  # the turn that it may have been given is another's
                raise
            finally:
                if future in self._waiting:
                    self._waiting.remove(future)
        self.busy += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back; how it ended decides how many there are to be."""
        if error is None:
            self._grow()
        elif isinstance(error, Retryable | TimeoutError):
            self._shrink()
        self.busy -= 1
        self._let_go_on()

    def _let_go_on(self) -> None:
        for future in self._waiting[: max(int(self.limit) - self.busy, 0)]:
            if not future.done():
                future.set_result(None)

    def _grow(self) -> None:
        self.limit = min(self.limit + (1 / self.limit if self.was_in_trouble else 1), MOST)

    def _shrink(self) -> None:
        self.was_in_trouble = True
        self.limit = max(min(self.limit, self.busy) / 2, LEAST)


def service_of(address: str) -> str:
    """Return what machines behind the same BMC have in common: its host and port."""
    return urlsplit(address).netloc.rpartition("@")[2].lower() or address
