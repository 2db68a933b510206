"""Find and end what an earlier supervisor left behind: processes that carry its run_dir in their environment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from core.settings import Paths

MARK = "RACKFLOW_SUPERVISED_IN"  # set for every child to its run_dir


def leftovers(run_dir: Path, proc: Path = Path("/proc")) -> list[int]:
    """Return the pids of processes marked with this run_dir, the caller excepted."""
    wanted = f"{MARK}={run_dir}".encode()
    found: list[int] = []
    for entry in proc.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def postmaster(data: Path, proc: Path = Path("/proc")) -> int | None:
    """Return the pid of a PostgreSQL that still serves the data folder; remove a stale postmaster.pid.

    PostgreSQL refuses to start when the pid in that file belongs to any living process of the same user.
    """
    file = data / "postmaster.pid"
    try:
        pid = int(file.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    try:
        if (proc / str(pid) / "cwd").readlink() == data:  # a postmaster works in its data folder
            return pid
    except OSError:
        pass
    file.unlink(missing_ok=True)
    return None


def sweep(paths: Paths, grace_s: float = 5.0) -> list[int]:
    """End every leftover process: SIGTERM (PostgreSQL: SIGINT), after the grace SIGKILL; return their pids."""
    server = postmaster(paths.data_dir / "postgres")
    marked = leftovers(paths.run_dir)
    pids = [*marked, *([server] if server and server not in marked else [])]
    for pid in pids:
        _signal(pid, signal.SIGINT if pid == server else signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while any(living(pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in living(pids):
        _signal(pid, signal.SIGKILL)
    while any(living(pids)) and time.monotonic() < deadline + grace_s:
        time.sleep(0.05)
    return pids


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def living(pids: list[int]) -> Iterator[int]:
    """Yield those that have not ended."""
    for pid in pids:
        with contextlib.suppress(OSError):
            # a zombie whose parent does not look counts as gone
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                yield pid
