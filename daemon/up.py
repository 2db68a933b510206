"""`up`: bring a front-end to life, in the foreground or detached; and what `down` does to end it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from core.errors import HostFault, RackflowError
from core.settings import Paths, Settings
from daemon import lock, logs, processes, state
from daemon.files import write_private
from daemon.ports import settle
from daemon.postgres import PrivateCluster
from daemon.supervisor import Supervisor
from daemon.sweep import living, sweep

_DOWN_S = 60.0  # the sum of all stop time-outs is less


class Progress:
    """Writes lines with the time since the beginning, at once."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._begun

    def __call__(self, line: str) -> None:
        print(f"[{self.elapsed_s:6.1f} s] {line}", flush=True)


def endpoint_file(paths: Paths) -> Path:
    """Return the file by which the command line finds a running front-end."""
    return paths.run_dir / "endpoint.json"


def print_addresses(paths: Paths) -> None:
    """Print where the running front-end is reached."""
    found = state.read(paths)["addresses"]
    print(f"  API         {found.get('api')}   (token in {found.get('token_file')})")
    print(f"  Prefect UI  {found.get('prefect_ui')}   (user {found.get('prefect_user')}, "
          f"password in {found.get('prefect_password_file')})")  # fmt: skip
    print(f"  logs        {logs.folder(paths)}", flush=True)


def up(settings: Settings, *, detached: bool = False, only: Sequence[str] = ()) -> int:
    """Start everything and stay until a signal comes; return the exit code.

    detached: this is the process that `detach` left behind. only: these processes and no others.
    """
    make_folders(settings.paths)
    return 0 if _is_up(settings.paths) else asyncio.run(_supervise(settings, detached, only))


def detach(paths: Paths, flags: Sequence[str]) -> int:
    """Start the supervisor as a process of its own and pass its lines on until it is up; return the exit code."""
    make_folders(paths)
    if _is_up(paths):
        return 0
    argv = [sys.executable, "-m", "daemon", "up", "--detached", *flags]
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        return 130
    if endpoint_file(paths).exists() and lock.holder(paths) == process.pid:
        process.returncode = 0  # it goes on; nobody here waits for it
        return 0
    return process.wait()


def _is_up(paths: Paths) -> bool:
    if pid := lock.holder(paths):
        print(f"rackflow is already up (supervisor {pid})")
        print_addresses(paths)
    return pid is not None


def make_folders(paths: Paths) -> None:
    """Make data_dir and run_dir. Others may pass through (PostgreSQL's user must), not look. Raise HostFault."""
    for folder in (paths.data_dir, paths.run_dir):
        try:
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        except OSError as error:
            raise HostFault(f"cannot make {folder}: {error.strerror}", "settings", fix="set RACKFLOW_DATA_DIR "
                            "and RACKFLOW_RUN_DIR to folders that you may write to") from error  # fmt: skip
        if folder.stat().st_uid not in (os.geteuid(), 0):
            raise HostFault(f"{folder} belongs to somebody else", "settings", fix="set RACKFLOW_RUN_DIR")


def make_ssh_key(paths: Paths) -> None:
    """Make the key pair by which hosts are reached, once."""
    if paths.ssh_key.exists():
        return
    paths.ssh_key.parent.mkdir(mode=0o700, exist_ok=True)
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rackflow", "-f", str(paths.ssh_key)]
    try:
        subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise HostFault(f"ssh-keygen failed: {error}", "settings", fix="apt-get install openssh-client") from error


async def _supervise(settings: Settings, detached: bool, only: Sequence[str]) -> int:
    say, paths = Progress(), settings.paths
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    lock.SupervisorLock(paths)  # until this process ends, however it ends
    if ended := await asyncio.to_thread(sweep, paths):
        say(f"ended {len(ended)} processes that an earlier supervisor left behind")
    settings = settle(settings)
    make_ssh_key(paths)
    cluster = PrivateCluster(paths)
    addresses = processes.addresses(settings)
    specs = [spec for spec in processes.table(settings, cluster) if not only or spec.name in only]
    supervisor = Supervisor(paths, specs, addresses, say)
    try:
        return await _run(supervisor, say, settings, stopping, detached)
    finally:
        endpoint_file(paths).unlink(missing_ok=True)
        await supervisor.stop()
        await asyncio.to_thread(sweep, paths)
        state.status_file(paths).unlink(missing_ok=True)
        say("rackflow is down")


async def _run(
    supervisor: Supervisor, say: Progress, settings: Settings, stopping: asyncio.Event, detached: bool
) -> int:
    stop_asked = asyncio.create_task(stopping.wait())
    starting = asyncio.create_task(supervisor.start())
    await asyncio.wait({stop_asked, starting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return 130
    try:
        starting.result()
    except RackflowError as error:
        say(f"rackflow did not come up: {error}")
        print(*(f"    {line}" for line in error.evidence.get("log", ())), sep="\n", flush=True)
        return error.exit_code
    write_private(endpoint_file(settings.paths), json.dumps(processes.addresses(settings)) + "\n", mode=0o644)
    say("rackflow is up")
    print_addresses(settings.paths)
    if detached:
        _move_output(logs.folder(settings.paths) / "supervisor.log")
    watching = asyncio.create_task(supervisor.watch())
    await stop_asked
    watching.cancel()
    say("stopping")
    return 0


def _move_output(log: Path) -> None:
    """Send further output to a file; whoever started us sees the end of our output, which means: up."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    sys.stdout.flush()
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)


def down(paths: Paths) -> int:
    """End a running front-end and wait for it; sweep what is left; return the exit code."""
    say = Progress()
    pid = lock.holder(paths)
    if pid is None:
        ended = sweep(paths) if paths.run_dir.exists() else []
        print(f"ended {len(ended)} processes without a supervisor" if ended else "rackflow is not up")
        return 0
    say(f"stopping supervisor {pid}")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    while any(living([pid])) and say.elapsed_s < _DOWN_S:
        time.sleep(0.05)
    if any(living([pid])):
        say("it does not end: killed")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        sweep(paths)
    say("rackflow is down")
    return 0
