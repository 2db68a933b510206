"""Process: Prefect's server, started as `prefect server start` does it, but in one import less and with quieter loops.

The same entry point as Prefect's own background mode uses (`uvicorn --factory prefect.server.api.server:create_app`
with PREFECT__SERVER_FINAL=1, prefect 3.8.8 cli/_server_utils.py).
"""

from __future__ import annotations

import functools
import socket
import time
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvicorn

from core.errors import Unreachable
from core.settings import Settings
from daemon import notify

_LOOK = timedelta(seconds=1)  # Docket looks for due tasks; 0.25 s by default, which costs most of the idle CPU


class NotifyingServer(uvicorn.Server):
    """A uvicorn server that tells the supervisor when it accepts requests."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        if self.started:
            notify.ready()


def wait_for_database(url: str, timeout_s: float = 90.0) -> None:
    """Wait until PostgreSQL listens on the unix socket named in a URL; other databases are not waited for."""
    folder = parse_qs(urlsplit(url).query).get("host", [""])[0]
    deadline = time.monotonic() + timeout_s
    while folder:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                return probe.connect(f"{folder}/.s.PGSQL.5432")
            except OSError as error:
                if time.monotonic() > deadline:
                    raise Unreachable(f"PostgreSQL does not listen in {folder}", "postgres") from error
        time.sleep(0.05)


def _slow_docket() -> None:
    from docket import Worker
    from prefect.server.api import background_workers

    slow: Any = functools.partial(Worker, minimum_check_interval=_LOOK, scheduling_resolution=_LOOK)
    background_workers.Worker = slow  # type: ignore[attr-defined]


def _let_schedules_be_inserted() -> None:
    """Repair Prefect 3.8.8's scheduler under SQLAlchemy 2.1.

    It inserts rows that carry a key "state" besides the columns. SQLAlchemy 2.0 ignored that; 2.1 refuses bulk values
    for a hybrid property without a bulk_dml hook (sqlalchemy/ext/hybrid.py), and no scheduled run is ever made.
    """
    from prefect.server.database.orm_models import FlowRun

    FlowRun.__dict__["state"].inplace.bulk_dml(lambda _cls, _row, _value: None)


def run(settings: Settings) -> None:
    """Serve until a signal comes."""
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    _slow_docket()
    _let_schedules_be_inserted()
    app = create_app(final=True)
    database = get_current_settings().server.database.connection_url
    wait_for_database(database.get_secret_value() if database else "")
    config = uvicorn.Config(
        app, host=settings.api_host, port=settings.prefect_port, log_level="warning", access_log=False,
        timeout_keep_alive=60, timeout_graceful_shutdown=2,
    )  # fmt: skip
    NotifyingServer(config).run()


