"""`rackflow up` and what follows: the whole front-end as its users meet it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from core.settings import Settings
from daemon.flow_table import FLOWS
from daemon.settings import child_environment, load
from daemon.sweep import MARK
from tests.integration.line import image_files
from tests.packages import SIMULATED, install
from tests.prefect.conftest import PROJECT, daemon, wait_until

pytestmark = pytest.mark.prefect
PROCESSES = {"postgres", "prefect", "analytics", "api", "worker"}


class FrontEnd:
    """A front-end in folders of its own."""

    def __init__(self, folder: Path) -> None:
        flags = {"data_dir": folder / "data", "run_dir": folder / "run", "api_port": 0, "prefect_port": 0}
        self.settings: Settings = load(flags)
        self.run_dir = folder / "run"

    def do(self, *argv: str, code: int = 0) -> str:
        done = daemon(self.settings, *argv)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(daemon(self.settings, "status", "-o", "json").stdout)
        return found

    def pid(self, name: str) -> int:
        return int(next(p["pid"] for p in self.status()["processes"] if p["name"] == name))

    def is_up_again(self, name: str, before: int) -> bool:
        """Say whether everything is ready and a process has another pid than before."""
        found = self.status()
        return found["state"] == "up" and before not in [p["pid"] for p in found["processes"] if p["name"] == name]

    def endpoint(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.run_dir / "endpoint.json").read_text())
        return found

    def token(self) -> str:
        return Path(self.endpoint()["token_file"]).read_text().strip()

    def get(self, path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token()}"}
        return httpx.get(self.endpoint()["api"] + path, headers=headers, timeout=10, trust_env=False)

    def ask(self, method: str, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Ask for changes; return their operations when all of them have ended."""
        headers = {"Authorization": f"Bearer {self.token()}"}
        url = self.endpoint()["api"] + path
        answer = httpx.request(method, url, json=body, headers=headers, timeout=10, trust_env=False)
        assert answer.is_success, answer.text
        ids = ",".join(op["id"] for op in answer.json().get("operations", ()))

        def ended() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = self.get(f"/v1/operations?ids={ids}").json()
            return found if all(op["finished_at"] for op in found) else []

        return list(wait_until(ended)) if ids else []

    def processes(self) -> list[psutil.Process]:
        """Return every process that belongs to it, by the mark in its environment or as a child of one that has it."""
        mine = [p for p in psutil.process_iter() if _environment(p).get(MARK) == str(self.run_dir)]
        if supervisor := self.status()["supervisor"]:
            mine.append(psutil.Process(supervisor))
        return list({q.pid: q for p in mine for q in (p, *p.children(recursive=True))}.values())


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that have not ended."""
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


@pytest.fixture(scope="module")
def front_end() -> Iterator[FrontEnd]:
    """A front-end that is up, where a package with a driver is installed."""
    folder = Path(tempfile.mkdtemp(prefix="up-", dir="/var/tmp"))
    folder.chmod(0o711)
    install(folder / "site", "acme", "acme_simulated", SIMULATED)
    found = FrontEnd(folder)
    begun = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "site"), prepend=os.pathsep)
        found.do("up", "--detach")
    print(f"first up: {time.monotonic() - begun:.1f} s")
    yield found
    found.do("down")
    shutil.rmtree(folder, ignore_errors=True)


def test_up_waits_until_everything_works_and_says_so(front_end: FrontEnd) -> None:
    assert front_end.status()["state"] == "up"
    assert {p["name"] for p in front_end.status()["processes"]} >= PROCESSES
    assert front_end.get("/v1/hosts").status_code == 200
    assert httpx.get(front_end.endpoint()["prefect_api"] + "/health", trust_env=False).json() is True
    again = front_end.do("up")  # in the foreground it would stay; it is up already
    assert "already up" in again
    assert front_end.endpoint()["api"] in again


def test_a_driver_that_a_package_brings_holds_instances(front_end: FrontEnd, tmp_path: Path) -> None:
    source = str(image_files(tmp_path)["vm"])
    for method, path, body in (
        ("POST", "hosts", {"name": "a1", "address": "10.9.9.1", "driver": "acme"}),
        ("POST", "images", {"name": "disk", "kind": "vm", "source": source}),
        ("POST", "networks", {"name": "lan", "bridge": "br0", "addressing": "dhcp", "default_for": ["vm"]}),
        ("POST", "instances", {"name": "web", "image": "disk", "memory": 128, "requirements": {"host": "a1"}}),
        ("POST", "instances/web/suspend", {}), ("DELETE", "instances/web", {}), ("DELETE", "hosts/a1", {}),
        ("DELETE", "images/disk", {}), ("DELETE", "networks/lan", {}),
    ):  # fmt: skip
        for op in front_end.ask(method, f"/v1/{path}", body):
            assert op["state"] == "done", (path, op["error"])
        if path == "instances":
            shown = front_end.get("/v1/hosts/a1").json()
            assert (shown["driver"], shown["state"], shown["instances"]) == ("acme", "ready", 1)


def test_secrets_are_in_files_of_mode_0600_and_in_nobodys_arguments(front_end: FrontEnd) -> None:
    files = [front_end.settings.paths.token_file, front_end.settings.paths.data_dir / "prefect.password"]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    secrets = [file.read_text().strip() for file in files]
    assert all(len(secret) >= 24 for secret in secrets)
    seen = [Path(f"/proc/{pid}/cmdline") for pid in psutil.pids()]
    lines = [file.read_bytes().decode(errors="replace") for file in seen if file.exists()]
    assert not [line for line in lines for secret in secrets if secret in line]
    logs = "".join(file.read_text() for file in (front_end.settings.paths.data_dir / "logs").iterdir())
    assert not [secret for secret in secrets if secret in logs]


def test_both_web_addresses_ask_who_is_there(front_end: FrontEnd) -> None:
    assert httpx.get(front_end.endpoint()["api"] + "/v1/hosts", trust_env=False).status_code in (401, 403)
    answer = httpx.post(front_end.endpoint()["prefect_api"] + "/flows/filter", json={}, trust_env=False)
    assert answer.status_code == 401


def test_all_listeners_are_on_loopback(front_end: FrontEnd) -> None:
    found = [
        connection.laddr
        for process in front_end.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in found} == {"127.0.0.1"}
    assert len({address.port for address in found}) == 2  # the API and Prefect; PostgreSQL has only a socket file


def test_every_flow_is_deployed_by_dotted_entrypoint_with_a_form(front_end: FrontEnd) -> None:
    password = (front_end.settings.paths.data_dir / "prefect.password").read_text().strip()
    answer = httpx.post(
        front_end.endpoint()["prefect_api"] + "/deployments/filter", json={}, auth=("admin", password), trust_env=False
    )
    found = {row["name"]: row for row in answer.json()}
    wanted = {
        "deploy": "deploy", "stage": "stage", "enroll": "enroll", "reconcile": "reconcile", "backup": "keep",
        "apply_plan": "rebalance", "enroll_machine": "enroll_machine",
        "change_machine": "change_machine", "host_power": "host_power",
        **dict.fromkeys(("start", "shutdown", "change", "migrate", "delete"), "change"),
        **dict.fromkeys(("evacuate", "fence", "adopt"), "evacuate"),
    }  # fmt: skip
    entrypoints = {name: f"flows.{module}.{name}" for name, module in wanted.items()}
    assert {name: row["entrypoint"] for name, row in found.items()} == entrypoints
    assert [name for name, row in found.items() if row["schedules"]] == ["reconcile"]
    assert all("operations" in row["parameter_openapi_schema"]["properties"] for row in found.values())


def test_a_machine_is_enrolled_by_prefects_form(front_end: FrontEnd) -> None:
    """What its UI sends: a run of the deployment, scheduled for now, with the form's fields."""
    password = (front_end.settings.paths.data_dir / "prefect.password").read_text().strip()

    def prefect(method: str, path: str, body: Any = None) -> Any:
        url = front_end.endpoint()["prefect_api"] + path
        answer = httpx.request(method, url, json=body, auth=("admin", password), trust_env=False)
        assert answer.status_code < 300, answer.text
        return answer.json()

    deployment = prefect("GET", "/deployments/name/enroll_machine/enroll_machine")
    fields = deployment["parameter_openapi_schema"]["properties"]
    assert {"name", "bmc", "user", "password_file", "system", "verify_tls"} <= fields.keys()
    assert all(fields[name].get("description") for name in ("name", "bmc", "password_file"))
    run = {"parameters": {"name": "m1", "bmc": "fake://m1"}, "state": {"type": "SCHEDULED"}}
    prefect("POST", f"/deployments/{deployment['id']}/create_flow_run", run)
    wait_until(lambda: front_end.get("/v1/machines/m1").status_code == 200)
    wait_until(lambda: front_end.get("/v1/machines/m1").json()["state"] == "ready")


def test_the_schedule_makes_runs(front_end: FrontEnd) -> None:
    password = (front_end.settings.paths.data_dir / "prefect.password").read_text().strip()

    def scheduled() -> list[dict[str, Any]]:
        answer = httpx.post(
            front_end.endpoint()["prefect_api"] + "/flow_runs/filter",
            json={"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}, auth=("admin", password), trust_env=False,
        )  # fmt: skip
        return [row for row in answer.json() if row["auto_scheduled"]]

    assert len(wait_until(scheduled, 45, 0.5)) >= 3


@pytest.mark.parametrize("name", ["api", "analytics", "worker", "prefect"])
def test_a_process_that_dies_comes_back(front_end: FrontEnd, name: str) -> None:
    before = front_end.pid(name)
    others = {p: front_end.pid(p) for p in PROCESSES - {name}}
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: front_end.is_up_again(name, before), 60, 0.2)
    assert {p: front_end.pid(p) for p in PROCESSES - {name}} == others
    assert front_end.get("/v1/instances").status_code == 200


def test_prefect_survives_its_database(front_end: FrontEnd) -> None:
    before = front_end.pid("postgres")
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: front_end.is_up_again("postgres", before), 60, 0.2)
    password = (front_end.settings.paths.data_dir / "prefect.password").read_text().strip()

    def deployments() -> int:
        answer = httpx.post(
            front_end.endpoint()["prefect_api"] + "/deployments/filter", json={}, auth=("admin", password),
            trust_env=False, timeout=20,
        )  # fmt: skip
        return len(answer.json()) if answer.status_code == 200 else 0

    assert wait_until(deployments, 40, 0.5) == len(FLOWS)


def test_logs_are_shown_by_process(front_end: FrontEnd) -> None:
    assert "ready to accept connections" in front_end.do("logs", "postgres")
    assert "postgres   | " in front_end.do("logs", "-n", "3")
    front_end.do("logs", "nonsense", code=3)


def test_a_second_front_end_lives_beside_the_first(front_end: FrontEnd) -> None:
    folder = Path(tempfile.mkdtemp(prefix="up2-", dir="/var/tmp"))
    folder.chmod(0o711)
    second = FrontEnd(folder)
    try:
        env = {**child_environment(second.settings), "RACKFLOW_API_PORT": "auto"}
        foreground = subprocess.Popen(
            [sys.executable, "-m", "daemon", "up", "--only=postgres,prefect"], env=env, cwd=PROJECT,
            start_new_session=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_until(lambda: (second.run_dir / "endpoint.json").exists() or foreground.poll() is not None, 90)
        assert foreground.poll() is None
        assert second.endpoint()["prefect_ui"] != front_end.endpoint()["prefect_ui"]
        foreground.send_signal(signal.SIGINT)  # Ctrl-C
        said, _ = foreground.communicate(timeout=30)
        assert foreground.returncode == 0
        assert "rackflow is down" in said
        assert second.processes() == []
    finally:
        second.do("down")
        shutil.rmtree(folder, ignore_errors=True)
    assert front_end.status()["state"] == "up"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a network namespace")
def test_it_comes_up_without_any_network() -> None:
    folder = Path(tempfile.mkdtemp(prefix="up4-", dir="/var/tmp"))
    folder.chmod(0o711)
    alone = FrontEnd(folder)
    begun = time.monotonic()
    try:
        script = f"ip link set lo up && {sys.executable} -m daemon up --detach && {sys.executable} -m daemon status"
        done = subprocess.run(
            ["unshare", "--net", "sh", "-c", script], env=child_environment(alone.settings), cwd=PROJECT, timeout=120,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "rackflow is up" in done.stdout
        print(f"first up without network: {time.monotonic() - begun:.1f} s")
    finally:
        alone.do("down")
        shutil.rmtree(folder, ignore_errors=True)


def test_down_leaves_nothing_and_up_again_has_everything(front_end: FrontEnd) -> None:
    token, endpoint = front_end.token(), front_end.endpoint()
    everything = front_end.processes()
    begun = time.monotonic()
    front_end.do("down")
    print(f"down: {time.monotonic() - begun:.1f} s")
    assert living(everything) == []
    assert front_end.status()["state"] == "down"
    assert not (front_end.run_dir / "endpoint.json").exists()
    assert "not up" in front_end.do("down")
    begun = time.monotonic()
    front_end.do("up", "--detach")
    print(f"second up: {time.monotonic() - begun:.1f} s")
    assert (front_end.token(), front_end.endpoint()) == (token, endpoint)
    assert front_end.get("/v1/hosts").status_code == 200


def test_a_killed_supervisor_leaves_no_process_and_up_works_again(front_end: FrontEnd) -> None:
    everything = front_end.processes()
    os.kill(front_end.status()["supervisor"], signal.SIGKILL)
    wait_until(lambda: not living(everything), 10)
    assert front_end.status()["state"] == "down"
    front_end.do("up", "--detach")
    assert front_end.get("/v1/hosts").status_code == 200


def test_a_port_that_is_taken_is_named(front_end: FrontEnd) -> None:
    folder = Path(tempfile.mkdtemp(prefix="up3-", dir="/var/tmp"))
    port = int(front_end.endpoint()["api"].rsplit(":", 1)[1])
    paths = dataclasses.replace(front_end.settings.paths, data_dir=folder / "data", run_dir=folder / "run")
    try:
        done = daemon(dataclasses.replace(front_end.settings, paths=paths, api_port=port), "up", "--detach")
        assert done.returncode == 5
        assert f"port {port}" in done.stdout + done.stderr
    finally:
        shutil.rmtree(folder)
