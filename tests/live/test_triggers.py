"""The three ways in: Prefect's UI, a schedule, an API. All pass through the same deployments and in-process worker."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from bench.cloud import Cloud
from core.ids import on_host
from tests.labs import Lab
from tests.live.test_main_job import until

CHROMIUM = Path("/usr/bin/chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


class Prefect:
    """Prefect's own API, as its UI uses it."""

    def __init__(self, front_end: Cloud) -> None:
        endpoint = json.loads(Path(front_end.env["RACKFLOW_RUN_DIR"], "endpoint.json").read_text())
        self.ui, self.api = endpoint["prefect_ui"], endpoint["prefect_api"]
        self.password = Path(endpoint["prefect_password_file"]).read_text().strip()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        auth = "Basic " + b64encode(f"admin:{self.password}".encode()).decode()
        data = None if body is None else json.dumps(body).encode()
        request = Request(
            self.api + path, data, {"Authorization": auth, "Content-Type": "application/json"}, method=method
        )
        with build_opener(ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """Return a deployment's flow runs that have begun, the newest first."""
        found = self.call("GET", f"/deployments/name/{deployment}/{deployment}")
        begun = {"state": {"type": {"any_": ["RUNNING", "COMPLETED", "FAILED", "CRASHED"]}}}
        deployments = {"id": {"any_": [found["id"]]}}
        body = {"deployments": deployments, "flow_runs": begun, "sort": "START_TIME_DESC", "limit": 20}
        return list(self.call("POST", "/flow_runs/filter", body))


@pytest.fixture(scope="module")
def prefect(front_end: Cloud) -> Prefect:
    return Prefect(front_end)


@pytest.fixture(autouse=True)
def _clean(front_end: Cloud) -> Iterator[None]:
    yield
    for row in front_end.call("GET", "/v1/instances"):
        if row["name"].startswith("trigger-"):
            front_end.rackflow("instance", "delete", row["name"], "--yes", check=False)


def test_a_form_in_prefects_ui(front_end: Cloud, prefect: Prefect, tmp_path: Path) -> None:
    """A person logs in, opens the deployment `deploy`, fills the form in and presses Submit."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    found = prefect.call("GET", "/deployments/name/deploy/deploy")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        tab = browser.new_page(viewport={"width": 1300, "height": 1800})
        tab.goto(prefect.ui)
        tab.locator("input").first.fill(f"admin:{prefect.password}")
        tab.get_by_role("button", name="Login").click()
        tab.wait_for_url("**/dashboard**")
        tab.goto(f"{prefect.ui}/deployments/deployment/{found['id']}/run")
        for field, value in (("name", "trigger-ui"), ("image", "busybox"), ("memory", "32MiB")):
            _fill(tab, field, value)
        tab.screenshot(path=str(tmp_path / "form.png"))
        tab.get_by_role("button", name="Submit").click()
        tab.wait_for_url("**tab=Runs**")
        until(lambda: _state(front_end, "trigger-ui") == "running", 60)
        tab.screenshot(path=str(tmp_path / "run.png"))
        browser.close()
    operations = [o for o in front_end.call("GET", "/v1/operations?limit=50") if o["name"] == "trigger-ui"]
    assert operations[0]["asked_by"] == "prefect"


def _fill(tab: Any, field: str, value: str) -> None:
    """Fill the input below a label of Prefect's form ("name (Optional)")."""
    label = tab.locator("label").filter(has_text=f"{field} (Optional)").first
    label.locator("xpath=following::*[self::input or self::textarea][1]").fill(value)


def _state(front_end: Cloud, name: str) -> str:
    done = front_end.run("instance", "show", name, "-o", "json")
    return str(json.loads(done.stdout)["state"]) if done.returncode == 0 else ""


def test_a_schedule_repairs_what_was_killed_behind_our_back(front_end: Cloud, prefect: Prefect, lab: Lab) -> None:
    front_end.rackflow("instance", "create", "trigger-schedule", "--image", "tiny", "--memory", "128MiB")
    seen = front_end.show("instance", "trigger-schedule")
    name = on_host(seen["id"])
    lab.run(seen["host"], f"virsh destroy {name}")
    assert "shut off" in lab.run(seen["host"], f"virsh domstate {name}")
    until(lambda: "running" in lab.run(seen["host"], f"virsh domstate {name}"), 60)
    until(lambda: _state(front_end, "trigger-schedule") == "running", 30)
    assert any(run["auto_scheduled"] and run["state_type"] == "COMPLETED" for run in prefect.runs("reconcile"))


def test_our_api(front_end: Cloud, prefect: Prefect) -> None:
    body = {"name": "trigger-api", "image": "busybox", "cpu": 0.1, "memory": 32}
    (op,) = front_end.call("POST", "/v1/instances", body)["operations"]
    (row,) = front_end.wait([op["id"]])
    assert row["state"] == "done"
    assert any(op["id"] in run["parameters"]["operations"] for run in prefect.runs("deploy"))


def test_prefects_own_api(front_end: Cloud, prefect: Prefect) -> None:
    found = prefect.call("GET", "/deployments/name/deploy/deploy")
    parameters = {"name": "trigger-prefect", "image": "busybox", "cpu": 0.1, "memory": "32MiB"}
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    run = prefect.call("POST", f"/deployments/{found['id']}/create_flow_run", body)
    until(lambda: _state(front_end, "trigger-prefect") == "running", 60)
    until(lambda: prefect.call("GET", f"/flow_runs/{run['id']}")["state_type"] == "COMPLETED", 20)


def test_a_bad_form_fails_the_run_with_the_reason(front_end: Cloud, prefect: Prefect) -> None:
    found = prefect.call("GET", "/deployments/name/deploy/deploy")
    body = {"parameters": {"name": "trigger-bad", "image": "no-such-image"}, "state": {"type": "SCHEDULED"}}
    run = prefect.call("POST", f"/deployments/{found['id']}/create_flow_run", body)
    ended = until(lambda: (r := prefect.call("GET", f"/flow_runs/{run['id']}"))["state_type"] == "FAILED" and r, 30)
    assert "no-such-image" in ended["state"]["message"]
