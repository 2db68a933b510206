"""Process: the REST API under uvicorn."""

from __future__ import annotations

import uvicorn

from analytics.client import AnalyticsClient
from api.app import create_app
from control.store import Store
from core.settings import Settings
from daemon.prefect_server import NotifyingServer
from daemon.wake import Waker


def run(settings: Settings) -> None:
    """Serve until SIGTERM."""
    store = Store(settings.database_url)
    analytics = AnalyticsClient(settings.paths.analytics_socket)
    app = create_app(settings, store, analytics, Waker(settings.paths.wake_socket))
    config = uvicorn.Config(
        app, host=settings.api_host, port=settings.api_port, log_level="warning", access_log=False, log_config=None,
        timeout_keep_alive=60, timeout_graceful_shutdown=3,
    )  # fmt: skip
    NotifyingServer(config).run()
