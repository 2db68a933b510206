"""The environment of Prefect's server and client (Prefect 3.8.8), as tables; reasons in docs/decisions/0003."""

from __future__ import annotations

from core.settings import Paths, Settings
from daemon.files import ensure_secret

USER = "admin"
_HOUR, _DAY = 3600, 86400

_QUIET = {  # nothing leaves this machine, and nothing waits for a network
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_LOGGING_COLORS": "false",
}
_BATCHED = {  # a quarter of the server's CPU per task run
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "2",
    "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "200",
}
_IDLE = {  # how often each service looks when there is nothing to do, in seconds; defaults are 5 to 20
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "30",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "300",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "300",
    "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_LOOP_SECONDS": "300",
    "PREFECT_SERVER_SERVICES_TRIGGERS_PG_NOTIFY_HEARTBEAT_INTERVAL_SECONDS": "60",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT15S",
}
_KEPT = {  # Prefect's history is for looking at; ours is the ledger and DuckDB
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(7 * _DAY),
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P2D",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_EVENT_RETENTION_OVERRIDES": f'{{"prefect.flow-run.heartbeat": {2 * _HOUR}}}',
    "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": str(_HOUR),
}
_WORKER = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # the least that Prefect allows
    "PREFECT_WORKER_QUERY_SECONDS": "5",  # only a safety net: events wake the worker
    "PREFECT_WORKER_PREFETCH_SECONDS": "10",  # scheduled runs are fetched before their time, and start on it
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "30",
    "PREFECT_API_REQUEST_TIMEOUT": "20",
    "PREFECT_CLIENT_MAX_RETRIES": "3",  # what fails then is given back to the ledger, which tries again
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",  # the server asks for the password in every request instead
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",  # client and server are one installation
    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "2",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


def url(settings: Settings) -> str:
    """Return the address of Prefect's UI."""
    return f"http://{settings.api_host}:{settings.prefect_port}"


def password(paths: Paths) -> str:
    """Return the password of Prefect's UI and API; made at the first call, mode 0600."""
    return ensure_secret(paths.data_dir / "prefect.password")


def client_environment(settings: Settings) -> dict[str, str]:
    """Return the variables of a process that runs flows or talks to Prefect's API."""
    home = settings.paths.data_dir / "prefect"
    return {
        **_QUIET, **_WORKER,
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": f"{url(settings)}/api",
        "PREFECT_UI_URL": url(settings),
        "PREFECT_API_AUTH_STRING": f"{USER}:{password(settings.paths)}",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    }  # fmt: skip


def server_environment(settings: Settings, database_url: str) -> dict[str, str]:
    """Return the variables of Prefect's server."""
    return {
        **client_environment(settings), **_BATCHED, **_IDLE, **_KEPT,
        "PREFECT_API_DATABASE_CONNECTION_URL": database_url,
        "PREFECT_SERVER_API_HOST": settings.api_host,
        "PREFECT_SERVER_API_PORT": str(settings.prefect_port),
        "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{password(settings.paths)}",
        "PREFECT_SERVER_UI_API_URL": f"{url(settings)}/api",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(settings.paths.data_dir / "prefect" / "ui"),
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    }  # fmt: skip
