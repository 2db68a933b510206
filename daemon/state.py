"""What is known of the processes, as the supervisor writes it to run_dir/status.json for `status` and `up`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from core.clock import now, rfc3339
from core.settings import Paths
from daemon.files import write_private


class ProcessState(StrEnum):
    WAITING = "waiting"  # for another process to be ready
    STARTING = "starting"
    READY = "ready"
    DONE = "done"  # ends by itself and did
    BACKOFF = "backoff"  # died; will be started again
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ProcessStatus:
    """One process. since: of the state; restarts: how often it died."""

    name: str
    state: ProcessState = ProcessState.WAITING
    pid: int | None = None
    restarts: int = 0
    since: datetime = field(default_factory=now)
    note: str = ""

    def moved(self, state: ProcessState, **changes: Any) -> ProcessStatus:
        """Return it in another state, since now."""
        return replace(self, state=state, since=now(), **changes)


GOOD = (ProcessState.READY, ProcessState.DONE)


def status_file(paths: Paths) -> Path:
    """Return where the supervisor writes the states."""
    return paths.run_dir / "status.json"


def write(paths: Paths, processes: list[ProcessStatus], addresses: dict[str, str]) -> None:
    """Write the states for others to read."""
    rows = [{**asdict(p), "since": rfc3339(p.since)} for p in processes]
    write_private(status_file(paths), json.dumps({"processes": rows, "addresses": addresses}) + "\n", mode=0o644)


def read(paths: Paths) -> dict[str, Any]:
    """Return what was written last; empty lists when nothing can be read."""
    try:
        found = json.loads(status_file(paths).read_text())
    except (OSError, ValueError):
        found = {}
    return {"processes": found.get("processes", []), "addresses": found.get("addresses", {})}
