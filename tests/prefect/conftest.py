"""A Prefect server with its PostgreSQL for the session, a state of record and workers for each test."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from control import access, operations, requests
from control.operations import Operation, Step
from control.seed import seed
from control.store import Store
from core.settings import Settings
from core.states import Verb
from daemon import prefect_settings
from daemon.files import write_private
from daemon.settings import child_environment, load
from daemon.wake import Waker

PROJECT = Path(__file__).resolve().parents[2]


def wait_until(what: Callable[[], Any], timeout_s: float = 20.0, every_s: float = 0.05) -> Any:
    """Return what() as soon as it is true. Raise AssertionError after the time-out."""
    deadline = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s"
        time.sleep(every_s)
    return found


def daemon(settings: Settings, *argv: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run `python -m daemon` for a front-end."""
    return subprocess.run(
        [sys.executable, "-m", "daemon", *argv], env=child_environment(settings), capture_output=True, text=True,
        timeout=timeout_s, check=False, cwd=PROJECT,
    )  # fmt: skip


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can reach, with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="rf-", dir="/var/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_server(short_folder: Path) -> Iterator[Settings]:
    """A front-end of which only PostgreSQL and Prefect's server run."""
    flags = {"data_dir": short_folder / "data", "run_dir": short_folder / "run", "api_port": 0, "prefect_port": 0}
    settings = load(flags)
    done = daemon(settings, "up", "--detach", "--only=postgres,prefect")
    assert done.returncode == 0, done.stdout + done.stderr
    ports = json.loads((settings.paths.data_dir / "ports.json").read_text())
    yield dataclasses.replace(settings, **ports)
    done = daemon(settings, "down")
    assert done.returncode == 0, done.stdout + done.stderr


@dataclasses.dataclass
class Bench:
    """A ledger of its own on the shared Prefect server, with workers as processes."""

    settings: Settings
    store: Store
    admin: access.Principal
    processes: list[subprocess.Popen[bytes]]

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start a worker process with the stub flows, and return when it polls."""
        env = {**child_environment(self.settings), **prefect_settings.client_environment(self.settings)}
        log = (self.settings.paths.data_dir / "worker.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.prefect.stub_worker"], env=env, cwd=PROJECT, stdout=log, stderr=log
        )
        self.processes.append(process)
        before = self.settings.paths.wake_socket
        before.unlink(missing_ok=True)
        wait_until(lambda: before.exists() or process.poll() is not None, 40)
        assert process.poll() is None, (self.settings.paths.data_dir / "worker.log").read_text()
        return process

    def submit(self, count: int, prefix: str) -> list[str]:
        """Enter import operations and wake the worker; return their ids."""
        images = [{"name": f"{prefix}-{i}", "kind": "vm", "source": f"/nowhere/{prefix}-{i}"} for i in range(count)]
        accepted = self.store.write_now(
            lambda c: requests.submit(c, self.admin, Verb.IMPORT, {"images": images}, source="test")
        )
        Waker(self.settings.paths.wake_socket)()
        return [op.id for op in accepted.operations]

    def operations(self, ids: list[str]) -> list[Operation]:
        return self.store.read_now(lambda c: operations.get(c, ids))

    def steps(self, ids: list[str]) -> dict[str, list[Step]]:
        return self.store.read_now(lambda c: operations.steps_of(c, ids))

    def wait_finished(self, ids: list[str], timeout_s: float = 30.0) -> list[Operation]:
        wait_until(lambda: all(op.finished_at for op in self.operations(ids)), timeout_s)
        return self.operations(ids)

    def trace(self, what: str, **wanted: Any) -> list[dict[str, Any]]:
        """Return the stub flows' notes of one kind."""
        file = self.settings.paths.run_dir / "trace.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [x for x in lines if x["what"] == what and all(x.get(k) == v for k, v in wanted.items())]

    def hold(self) -> Path:
        """Keep flows between their two steps for as long as the returned file exists."""
        file = self.settings.paths.run_dir / "hold"
        file.touch()
        return file

    def prefect(self, method: str, path: str, body: Any = None) -> Any:
        """Ask Prefect's API as an operator does."""
        password = prefect_settings.password(self.settings.paths)
        auth = "Basic " + b64encode(f"admin:{password}".encode()).decode()
        url = f"{prefect_settings.url(self.settings)}/api{path}"
        answer = httpx.request(method, url, json=body, headers={"Authorization": auth}, timeout=20, trust_env=False)
        answer.raise_for_status()
        return answer.json() if answer.content else None


@pytest.fixture
def bench(prefect_server: Settings, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """An empty ledger and work pool; the workers that a test started are killed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir=prefect_server.paths.data_dir.parent))
    paths = dataclasses.replace(prefect_server.paths, data_dir=folder, run_dir=folder)
    settings = dataclasses.replace(
        prefect_server, paths=paths, database_url=f"sqlite:///{folder}/state.db", work_pool=f"pool-{folder.name}"
    )
    write_private(folder / "prefect.password", prefect_settings.password(prefect_server.paths))
    store = Store(settings.database_url)
    store.migrate()
    store.write_now(lambda c: seed(c, settings.drivers.datastore_path))
    admin = store.write_now(lambda c: access.named(c, "admin", access.ADMIN))
    found = Bench(settings, store, admin, [])
    yield found
    for process in found.processes:
        process.kill()
        process.wait()
    store.close_now()
