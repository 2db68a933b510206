"""Who is the supervisor: a lock held for its whole life, so that no stale pid file can mislead anyone.

fcntl(2) record locks: the kernel names their holder. A process loses them when it closes any descriptor of the file,
so the supervisor never opens these files again.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from core.errors import Conflict
from core.settings import Paths

_FLOCK = "hhxxxxqqixxxx"  # struct flock on 64-bit Linux: type, whence, start, length, pid


class SupervisorLock:
    """Holds run_dir and data_dir for one supervisor; ends with the process, however it ends."""

    def __init__(self, paths: Paths) -> None:
        self._descriptors = [
            hold(paths.data_dir / "supervisor.lock", f"the data folder {paths.data_dir}"),
            hold(lock_file(paths), f"the run folder {paths.run_dir}"),
        ]

    def release(self) -> None:
        """Let others in."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []


def lock_file(paths: Paths) -> Path:
    """Return the file whose lock says that a supervisor lives; it holds the supervisor's pid."""
    return paths.run_dir / "supervisor.pid"


def holder(paths: Paths) -> int | None:
    """Return the pid of the living supervisor, or None. Only asks, so it cannot get in a supervisor's way."""
    try:
        descriptor = os.open(lock_file(paths), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(descriptor)
    kind, _, _, _, pid = struct.unpack(_FLOCK, found)
    return None if kind == fcntl.F_UNLCK else int(pid)


def hold(file: Path, what: str) -> int:
    """Lock a file for the rest of this process's life; return its descriptor. Raise Conflict when another has it."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        os.close(descriptor)
        raise Conflict(
            f"{what} is in use by another running rackflow", str(file),
            fix="set RACKFLOW_DATA_DIR and RACKFLOW_RUN_DIR to folders of its own, or run `rackflow down` there",
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
