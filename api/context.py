"""What all routes share, and the small types of their parameters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection

from analytics.client import AnalyticsClient
from api.tickets import Tickets
from control.gather import Gather
from control.requests import submit_all
from control.store import Store
from core.clock import now
from core.errors import Invalid, RackflowError
from core.settings import Settings

if TYPE_CHECKING:
    from drivers.pool import HostPool

PAGE = 1000
FEATURES_S = 0.5


@dataclass
class Context:
    """One per API process. wake: tells the dispatcher that the ledger holds something new."""

    settings: Settings
    store: Store
    analytics: AnalyticsClient
    wake: Callable[[], None]
    started_at: datetime = field(default_factory=now)
    tickets: Tickets = field(default_factory=Tickets)
    _pool: HostPool | None = None
    _features: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.requests = Gather(self.store.write, submit_all)

    @property
    def pool(self) -> HostPool:
        """Return this process's connections to hosts, made when first asked for."""
        if self._pool is None:
            from drivers.pool import HostPool  # asyncssh takes 0.2 s to import, and few processes ever exec

            self._pool = HostPool(self.settings.drivers)
        return self._pool

    async def features(self) -> dict[str, Any]:
        """Return measured figures for placement; the last known ones when the history does not answer in time."""
        with suppress(RackflowError, TimeoutError):
            self._features = await asyncio.wait_for(asyncio.to_thread(self.analytics.features), FEATURES_S)
        return self._features

    async def close(self) -> None:
        """Close the connections to hosts and to the history."""
        if self._pool is not None:
            await self._pool.close()
        self.analytics.close()


async def get_context(connection: HTTPConnection) -> Context:  # async: FastAPI runs other functions in a thread
    """Return the context of the app that serves this request or WebSocket."""
    found: Context = connection.app.state.context
    return found


Ctx = Annotated[Context, Depends(get_context)]
Limit = Annotated[int, Query(ge=1, le=10_000, description="how many at most")]
After = Annotated[str | None, Query(description="id of the last one seen: what comes after it is returned")]
Name = Annotated[str | None, Query(description="only the one with this name or id")]
State = Annotated[str | None, Query(description="only in this state")]
LabelQuery = Annotated[list[str] | None, Query(alias="label", description="KEY=VALUE; several must all hold")]


async def labels_of(label: LabelQuery = None) -> dict[str, str]:
    """Return the labels asked for. Raise Invalid."""
    bad = next((text for text in label or () if "=" not in text), None)
    if bad is not None:
        raise Invalid(f"label {bad!r} is not KEY=VALUE", evidence={"errors": [{"field": "label", "message": bad}]})
    return dict(text.split("=", 1) for text in label or ())


Labels = Annotated[dict[str, str], Depends(labels_of)]


def page(request: Request, rows: list[dict[str, Any]], limit: int) -> JSONResponse:
    """Return a list; when there may be more, the header Link says where (RFC 8288)."""
    headers = {}
    if len(rows) >= limit:
        following = request.url.include_query_params(after=rows[-1]["id"])
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return JSONResponse(rows, headers=headers)
