"""The supervisor with small real processes: started, restarted, ended for certain."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from core.errors import Conflict, HostFault
from core.settings import Paths
from daemon import lock, state
from daemon.child import ChildSpec
from daemon.supervisor import Supervisor
from daemon.sweep import MARK, leftovers, postmaster, sweep

PROJECT = Path(__file__).resolve().parents[2]
READY = "from daemon import notify; notify.ready(); import time; "
ENV = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]}


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def child(name: str, code: str = READY + "time.sleep(60)", **more: object) -> ChildSpec:
    return ChildSpec(name, python(code), ENV, **more)  # type: ignore[arg-type]


async def until(what: Callable[[], object], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not what():
            await asyncio.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Rig:
    """A supervisor over folders of its own."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder / "data", folder / "run")
        self.paths.data_dir.mkdir()
        self.paths.run_dir.mkdir()
        self.said: list[str] = []

    async def start(self, *specs: ChildSpec) -> None:
        self.supervisor = Supervisor(self.paths, specs, {}, self.said.append)
        try:
            await asyncio.wait_for(self.supervisor.start(), 20)
        except TimeoutError:
            raise AssertionError(f"not up: {self.said} {state.read(self.paths)}") from None

    def status(self, name: str) -> dict[str, object]:
        found: dict[str, object] = next(p for p in state.read(self.paths)["processes"] if p["name"] == name)
        return found

    def pid(self, name: str) -> int:
        return int(str(self.status(name)["pid"]))


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    found = Rig(tmp_path)
    yield found
    await found.supervisor.stop()


async def test_a_process_that_dies_is_started_again(rig: Rig) -> None:
    await rig.start(child("a"), child("b", after=("a",)))
    first, other = rig.pid("a"), rig.pid("b")
    os.kill(first, signal.SIGKILL)
    await until(lambda: rig.status("a")["state"] == "ready" and rig.pid("a") != first)
    assert rig.status("a")["restarts"] == 1
    assert rig.pid("b") == other
    assert "a          backoff: was ended by signal 9" in rig.said


async def test_a_full_disk_does_not_keep_a_process_from_being_started_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.start(child("a"))
    first = rig.pid("a")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(state, "write", full)
        patched.setattr(Path, "write_text", full)
        patched.setattr(rig.supervisor, "_say", full)
        os.kill(first, signal.SIGKILL)
        await until(lambda: "a" in rig.supervisor._running and rig.supervisor._running["a"].pid != first)
        second = rig.supervisor._running["a"].pid
        await until(lambda: rig.supervisor._ever_ready == {"a"} and rig.supervisor._status["a"].state == "ready")
        await asyncio.sleep(1)
        assert rig.supervisor._running["a"].pid == second, "it was started once more"
        assert not is_gone(second)
    os.kill(second, signal.SIGKILL)
    await until(lambda: rig.status("a")["state"] == "ready" and rig.pid("a") not in (first, second))


async def test_what_waits_for_another_starts_after_it(rig: Rig) -> None:
    first = child("first", "import time; time.sleep(0.3)", once=True)
    await rig.start(child("second", after=("first",)), first)
    ready = [line.split()[0] for line in rig.said if line.endswith(("ready", "done"))]
    assert ready == ["first", "second"]


async def test_a_process_that_cannot_live_fails_the_start_with_its_last_words(rig: Rig) -> None:
    with pytest.raises(HostFault, match="bad ended with exit code 3, 3 times") as failure:
        await rig.start(child("good"), child("bad", "print('no such thing'); raise SystemExit(3)"))
    assert "no such thing" in failure.value.evidence["log"]


async def test_a_process_that_is_never_ready_is_ended(rig: Rig) -> None:
    with pytest.raises(HostFault, match="was not ready in time"):
        await rig.start(child("slow", "import time; time.sleep(60)", start_timeout_s=0.2))


async def test_stages_end_in_order_and_the_stubborn_are_killed(rig: Rig) -> None:
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    deaf = child("deaf", ignore + READY + "time.sleep(60)", stop_timeout_s=0.3)
    await rig.start(child("base", stage=2), child("top", stage=1), deaf)
    pids = [rig.pid(name) for name in ("base", "top", "deaf")]
    await rig.supervisor.stop()
    ended = [line.split()[0] for line in rig.said if "stopped" in line]
    assert ended == ["deaf", "top", "base"]
    assert any("killed" in line for line in rig.said if line.startswith("deaf"))
    assert all(is_gone(pid) for pid in pids)


async def test_what_a_process_started_itself_ends_with_it(rig: Rig) -> None:
    spawn = "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); "
    await rig.start(child("parent", spawn + READY + "time.sleep(60)"))
    grandchild = int((rig.paths.data_dir / "logs" / "parent.log").read_text())
    await rig.supervisor.stop()
    for _ in range(100):  # killed is not gone yet, on a machine with much to do
        if is_gone(grandchild):
            break
        await asyncio.sleep(0.05)
    assert is_gone(grandchild)


def supervisor_process(folder: Path) -> tuple[subprocess.Popen[bytes], Paths]:
    """Start a supervisor in a process of its own, with a deaf child, and return when the child is ready."""
    code = f"""
import asyncio, sys
from pathlib import Path
from tests.integration.test_daemon_supervisor import Rig, child, READY
from daemon.sweep import MARK
from daemon import lock
async def main():
    rig = Rig(Path({str(folder)!r}))
    held = lock.SupervisorLock(rig.paths)
    spec = child("deaf", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY + "time.sleep(60)")
    spec.environment[MARK] = str(rig.paths.run_dir)
    await rig.start(spec)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    process = subprocess.Popen(python(code), cwd=PROJECT)
    paths = Paths(folder / "data", folder / "run")
    deadline = time.monotonic() + 20
    while not any(p["state"] == "ready" for p in state.read(paths)["processes"]):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, paths


def test_a_supervisor_that_is_killed_takes_its_processes_along(tmp_path: Path) -> None:
    process, paths = supervisor_process(tmp_path)
    pid = int((paths.run_dir / "deaf.pid").read_text())
    assert lock.holder(paths) == process.pid
    assert leftovers(paths.run_dir) == [pid]
    with pytest.raises(Conflict, match="in use by another"):
        lock.SupervisorLock(paths)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while not is_gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert lock.holder(paths) is None
    lock.SupervisorLock(paths).release()


def test_marked_processes_without_a_supervisor_are_swept(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    mine = subprocess.Popen(python(deaf), env={**ENV, MARK: str(tmp_path)})
    other = subprocess.Popen(["sleep", "60"], env={**ENV, MARK: str(tmp_path / "other")})
    try:
        time.sleep(0.3)
        assert sweep(paths, grace_s=0.5) == [mine.pid]
        assert mine.wait(5) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_stale_postmaster_pid_is_removed_even_if_its_number_lives(tmp_path: Path) -> None:
    file = tmp_path / "postmaster.pid"
    file.write_text(f"{os.getpid()}\n{tmp_path}\n")
    assert postmaster(tmp_path) is None
    assert not file.exists()
