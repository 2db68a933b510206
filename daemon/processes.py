"""The processes of a front-end, as a table: what each needs first, how it is ended, and in which order."""

from __future__ import annotations

import signal
import sys

from core.settings import Settings
from daemon import prefect_settings
from daemon.child import ChildSpec
from daemon.postgres import PrivateCluster
from daemon.settings import child_environment
from daemon.sweep import MARK


def table(settings: Settings, cluster: PrivateCluster) -> list[ChildSpec]:
    """Return the processes in the order of the log. What is not named in `after` starts at once, side by side."""
    base = {**child_environment(settings), MARK: str(settings.paths.run_dir)}
    prefect = {**base, **prefect_settings.client_environment(settings)}
    server = {**base, **prefect_settings.server_environment(settings, cluster.url)}
    return [
        ChildSpec(
            "postgres", cluster.argv, base, stage=3, stop_signal=signal.SIGINT, stop_timeout_s=15.0,
            death_signal=signal.SIGINT, prepare=cluster.prepare, is_ready=cluster.is_ready, identity=cluster.identity(),
        ),
        # It waits for PostgreSQL itself, when its imports are done.
        ChildSpec("prefect", _python("prefect"), server, stage=2, stop_timeout_s=5.0),
        ChildSpec("record", _python("record"), base, once=True),
        ChildSpec("analytics", _python("analytics"), base, after=("record",), stage=2, stop_timeout_s=10.0),
        ChildSpec("api", _python("api"), base, after=("record",), stage=1),
        # It waits for Prefect itself, when its imports are done.
        ChildSpec(
            "worker", _python("worker"), prefect, after=("record",), stage=1,
            stop_timeout_s=settings.worker.stop_s + 10.0,
        ),
    ]  # fmt: skip


def addresses(settings: Settings) -> dict[str, str]:
    """Return what a person or the command line needs to reach the front-end."""
    return {
        "api": f"http://{settings.api_host}:{settings.api_port}",
        "token_file": str(settings.paths.token_file),
        "prefect_ui": prefect_settings.url(settings),
        "prefect_api": f"{prefect_settings.url(settings)}/api",
        "prefect_user": prefect_settings.USER,
        "prefect_password_file": str(settings.paths.data_dir / "prefect.password"),
        "data_dir": str(settings.paths.data_dir),
    }


def _python(verb: str) -> list[str]:
    return [sys.executable, "-m", "daemon", verb]


