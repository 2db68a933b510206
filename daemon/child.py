"""One supervised process: how it is started, and how it is ended for certain."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon import notify

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class ChildSpec:
    """What to run. after: names that must be ready before. stage: lower ones are stopped first.

    prepare: called in a thread before each start. is_ready: asked every 50 ms; None = the process says so itself
    (notify). once: it ends by itself when it is done.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    after: tuple[str, ...] = ()
    once: bool = False
    stage: int = 0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 5.0
    death_signal: signal.Signals = signal.SIGKILL  # when the supervisor dies without a word
    start_timeout_s: float = 120.0
    prepare: Callable[[], object] | None = None
    is_ready: Callable[[], bool] | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)  # user, group, extra_groups of subprocess


def _die_with_parent(parent: int, number: int) -> Callable[[], None]:
    def apply() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return apply


async def spawn(spec: ChildSpec, log: Path, notify_socket: Path) -> asyncio.subprocess.Process:
    """Start the process in a session of its own, its output appended to the log. It dies with its parent."""
    named = {notify.SOCKET_VARIABLE: str(notify_socket), notify.NAME_VARIABLE: spec.name}
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        return await asyncio.create_subprocess_exec(
            *spec.argv, env={**spec.environment, **named}, stdin=asyncio.subprocess.DEVNULL, stdout=descriptor,
            stderr=descriptor, start_new_session=True, cwd="/",
            preexec_fn=_die_with_parent(os.getpid(), spec.death_signal), **spec.identity,
        )  # fmt: skip
    finally:
        os.close(descriptor)


async def stop(process: asyncio.subprocess.Process, spec: ChildSpec) -> bool:
    """Ask the process to end, and end its whole group after the time-out; return whether it ended by itself."""
    willing = True
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(spec.stop_signal)
        try:
            await asyncio.wait_for(process.wait(), spec.stop_timeout_s)
        except TimeoutError:
            willing = False
    kill_group(process.pid)
    await process.wait()
    return willing


def kill_group(leader: int) -> None:
    """SIGKILL what is left of a process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
