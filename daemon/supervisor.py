"""Starts the processes, keeps them running, and ends them: the engine behind `rackflow up`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from core.errors import HostFault, RackflowError
from core.settings import Paths
from daemon import child, logs, notify, state
from daemon.backoff import Failures
from daemon.child import ChildSpec
from daemon.state import GOOD, ProcessState, ProcessStatus

Say = Callable[[str], None]
_ROTATE_EVERY_S = 30.0


class Supervisor:
    """One set of processes. `start` waits until all are ready; `stop` ends them in order."""

    def __init__(self, paths: Paths, specs: Sequence[ChildSpec], addresses: dict[str, str], say: Say) -> None:
        self._paths = paths
        self._specs = {spec.name: spec for spec in specs}
        self._addresses = addresses
        self._say = say
        self._status = {spec.name: ProcessStatus(spec.name) for spec in specs}
        self._changed = asyncio.Event()
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._failure: RackflowError | None = None
        self._ever_ready: set[str] = set()
        self._said_ready: dict[str, int] = {}
        self._notify_socket = paths.run_dir / "notify.sock"
        self._receiver: socket.socket | None = None

    async def start(self) -> None:
        """Start everything and wait for it. Raise HostFault when a process cannot be kept alive."""
        logs.folder(self._paths).mkdir(mode=0o755, exist_ok=True)
        self._receiver = receiver = notify.listen(self._notify_socket)
        asyncio.get_running_loop().add_reader(receiver, self._on_notify, receiver)
        self._publish()
        for spec in self._specs.values():
            self._keepers[spec.name] = asyncio.create_task(self._keep(spec), name=f"keep {spec.name}")
        await self._wait(lambda: self._all_good() or self._failure is not None)
        if self._failure:
            raise self._failure

    async def watch(self) -> None:
        """Rotate logs until cancelled."""
        while True:
            await asyncio.sleep(_ROTATE_EVERY_S)
            with contextlib.suppress(OSError):  # a full disk, say: it may have room the next time
                logs.rotate(logs.folder(self._paths).glob("*.log"))

    async def stop(self) -> None:
        """End all processes, stage by stage, those of one stage together."""
        keepers = list(self._keepers.values())
        for task in keepers:
            task.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for stage in sorted({spec.stage for spec in self._specs.values()}):
            await asyncio.gather(*(
                self._end(spec) for spec in self._specs.values() if spec.stage == stage and spec.name in self._running
            ))  # fmt: skip
        if self._receiver is not None:
            asyncio.get_running_loop().remove_reader(self._receiver)
            self._receiver.close()
            self._receiver = None
            self._notify_socket.unlink(missing_ok=True)

    async def _keep(self, spec: ChildSpec) -> None:
        """Start one process again and again, for as long as this task lives."""
        await self._wait(lambda: all(self._status[name].state in GOOD for name in spec.after if name in self._specs))
        failures = Failures()
        while True:
            begun = time.monotonic()
            try:
                code = await self._run_once(spec)
            except OSError:  # a full disk, say: nothing could be written about it
                code = 127
            if spec.once and code == 0:
                self._move(spec.name, ProcessState.DONE, pid=None)
                return
            failures = failures.after(time.monotonic() - begun)
            self._report_end(spec, code, failures)
            await asyncio.sleep(failures.delay_s)

    async def _run_once(self, spec: ChildSpec) -> int | None:
        """Run one life of a process; return its exit code, None when it was not ready in time."""
        try:
            if spec.prepare:
                await asyncio.to_thread(spec.prepare)
            process = await child.spawn(spec, self._log(spec.name), self._notify_socket)
        except (OSError, RackflowError) as error:
            with self._log(spec.name).open("a") as log:
                log.write(f"cannot be started: {error}\n")
            if isinstance(error, RackflowError) and spec.name not in self._ever_ready:
                self._failure = self._failure or error  # it says what to do; trying again would only hide that
            return 127
        self._running[spec.name] = process
        with contextlib.suppress(OSError):  # a full disk, say: it runs, and is watched
            self._pid_file(spec.name).write_text(f"{process.pid}\n")
        self._move(spec.name, ProcessState.STARTING, pid=process.pid, note="")
        if self._said_ready.get(spec.name) == process.pid:
            self._ready(spec.name, process.pid)
        readiness = asyncio.create_task(self._until_ready(spec, process))
        try:
            code = await process.wait()
            child.kill_group(process.pid)  # what it started itself
            return code if self._status[spec.name].note != "late" else None
        finally:
            readiness.cancel()
            if process.returncode is not None:
                self._running.pop(spec.name, None)
                self._pid_file(spec.name).unlink(missing_ok=True)

    async def _until_ready(self, spec: ChildSpec, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + spec.start_timeout_s
        while self._status[spec.name].state is ProcessState.STARTING:
            if spec.is_ready and spec.is_ready():
                return self._ready(spec.name, process.pid)
            if time.monotonic() > deadline and not spec.once:
                self._move(spec.name, ProcessState.STARTING, note="late")
                child.kill_group(process.pid)
                return None
            await asyncio.sleep(0.05 if spec.is_ready else 1.0)
        return None

    def _on_notify(self, receiver: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while message := receiver.recv(256):
                if (found := notify.parse(message)) and found[0] in self._specs:
                    self._ready(*found)

    def _ready(self, name: str, pid: int) -> None:
        self._said_ready[name] = pid  # it may come before we know the pid of what we started
        status = self._status[name]
        if status.state is ProcessState.STARTING and status.pid == pid:
            self._ever_ready.add(name)
            self._move(name, ProcessState.READY)

    def _report_end(self, spec: ChildSpec, code: int | None, failures: Failures) -> None:
        how = "was not ready in time" if code is None else _describe(code)
        restarts = self._status[spec.name].restarts + 1
        self._move(spec.name, ProcessState.BACKOFF, pid=None, note=how, restarts=restarts)
        if failures.hopeless(spec.name in self._ever_ready) and self._failure is None:
            self._failure = HostFault(
                f"{spec.name} {how}, {failures.in_a_row} times in a row", f"process/{spec.name}",
                {"log": logs.tail(self._log(spec.name), 15)}, fix=f"read {self._log(spec.name)}",
            )  # fmt: skip
            self._changed.set()

    async def _end(self, spec: ChildSpec) -> None:
        self._move(spec.name, ProcessState.STOPPING)
        process = self._running.pop(spec.name)
        willing = await child.stop(process, spec)
        self._pid_file(spec.name).unlink(missing_ok=True)
        note = "" if willing else f"killed: it had not ended after {spec.stop_timeout_s:.0f} s"
        self._move(spec.name, ProcessState.STOPPED, pid=None, note=note)

    def _move(self, name: str, to: ProcessState, **changes: object) -> None:
        self._status[name] = status = self._status[name].moved(to, **changes)
        self._changed.set()
        with contextlib.suppress(OSError):  # on a full disk the processes go on, and nothing is said of them
            if to is not ProcessState.STARTING or status.note:
                note = f": {status.note}" if status.note else ""
                self._say(f"{name:<10} {to.value}{note}")
            self._publish()

    def _publish(self) -> None:
        state.write(self._paths, list(self._status.values()), self._addresses)

    def _all_good(self) -> bool:
        return all(status.state in GOOD for status in self._status.values())

    async def _wait(self, until: Callable[[], bool]) -> None:
        while not until():
            self._changed.clear()
            await self._changed.wait()

    def _log(self, name: str) -> Path:
        return logs.folder(self._paths) / f"{name}.log"

    def _pid_file(self, name: str) -> Path:
        return self._paths.run_dir / f"{name}.pid"


def _describe(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
