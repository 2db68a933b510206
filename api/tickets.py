"""One-time tickets for consoles, in the memory of this process, which has the connections to the hosts.

A browser cannot send a token with a WebSocket, and a token must not stand in an address: a ticket may, since it is good
for one connection and a few seconds.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from control.access import Principal
from core.errors import Denied

VALID_S = 30.0


@dataclass(frozen=True)
class Ticket:
    """What a ticket opens, for whom. until: by the clock of Tickets."""

    caller: Principal
    instance_id: str
    kind: str
    until: float


@dataclass
class Tickets:
    """Those that nobody has used yet."""

    clock: Callable[[], float] = time.monotonic
    _open: dict[str, Ticket] = field(default_factory=dict)

    def issue(self, caller: Principal, instance_id: str, kind: str) -> str:
        """Return a new ticket of 256 random bits."""
        at = self.clock()
        self._open = {text: one for text, one in self._open.items() if one.until > at}
        text = secrets.token_urlsafe(32)
        self._open[text] = Ticket(caller, instance_id, kind, at + VALID_S)
        return text

    def redeem(self, text: str) -> Ticket:
        """Take a ticket: it is good once. Raise Denied."""
        found = self._open.pop(text, None)
        if found is None or found.until <= self.clock():
            raise Denied(
                "the ticket is not good: it was used, is too old, or was never given", "console", {},
                f"ask for a new one; it is good once, for {VALID_S:.0f} s",
            )  # fmt: skip
        return found
