"""A rackflow with a lab of its own, for benchmarks: brought up by the command line as a user would, then taken down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
RACKFLOW = str(Path(sys.executable).parent / "rackflow")


def say(text: str) -> None:
    """Talk on stderr; stdout is for figures."""
    print(f"[bench] {text}", file=sys.stderr, flush=True)


@dataclass
class Cloud:
    """A running rackflow. base: where it lives."""

    base: Path
    env: dict[str, str]
    url: str
    token: str

    @contextmanager
    def again(self, **settings: str) -> Iterator[None]:
        """Take it down, let the caller do what needs that, and bring it up again with more settings."""
        self.rackflow("down")
        yield
        self.env |= {f"RACKFLOW_{name.upper()}": value for name, value in settings.items()}
        self.rackflow("up", "--detach")
        self.find()

    def find(self) -> None:
        """Find out where its API is, and the administrator's token."""
        endpoint = json.loads(Path(self.env["RACKFLOW_RUN_DIR"], "endpoint.json").read_text())
        self.url, self.token = endpoint["api"], Path(endpoint["token_file"]).read_text().strip()

    def run(self, *argv: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run the command line, whatever comes out."""
        return subprocess.run([RACKFLOW, *argv], env=self.env, capture_output=True, text=True, timeout=timeout_s)

    def rackflow(self, *argv: str, check: bool = True) -> str:
        """Run the command line and return its stdout."""
        done = self.run(*argv)
        if check and done.returncode != 0:
            raise RuntimeError(f"rackflow {' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def show(self, noun: str, name: str) -> dict[str, Any]:
        """Return `rackflow NOUN show NAME -o json`."""
        found: dict[str, Any] = json.loads(self.rackflow(noun, "show", name, "-o", "json"))
        return found

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API and return its JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)

    def wait(self, operations: list[str], *, timeout_s: float = 600) -> list[dict[str, Any]]:
        """Poll until all operations have ended; return them with their steps."""
        until = time.monotonic() + timeout_s
        while True:
            rows = self.call("GET", f"/v1/operations?ids={','.join(operations)}&limit={len(operations)}")
            if all(r["state"] not in ("pending", "running", "compensating") for r in rows):
                return [self.call("GET", f"/v1/operations/{i}") for i in operations[:50]]
            if time.monotonic() > until:
                raise RuntimeError(f"not done after {timeout_s} s: {rows}")
            time.sleep(0.02 if len(operations) == 1 else 0.2)

    def processes(self) -> list[psutil.Process]:
        """Return every process of this rackflow (not the lab's): all that have its run folder in their environment."""
        run_dir = self.env["RACKFLOW_RUN_DIR"]
        roots = [p for p in psutil.process_iter() if p.pid != os.getpid() and _is_of(p, run_dir)]
        return list({q.pid: q for p in roots for q in [p, *p.children(recursive=True)]}.values())


def _is_of(process: psutil.Process, run_dir: str) -> bool:
    try:
        return process.environ().get("RACKFLOW_RUN_DIR") == run_dir
    except (psutil.Error, OSError):
        return False


@contextmanager
def cloud(
    *lab: str, base: Path = Path("/var/tmp/rackflow-bench"), lab_dir: Path | None = None, **settings: str
) -> Iterator[Cloud]:
    """Bring up a lab ("kvm:2", "lxd:2") and a rackflow with its hosts enrolled and images imported.

    What an earlier run that was killed has left in base goes first: a front-end that still runs, its data, its lab.
    lab_dir: use the lab that runs there, and leave it. settings: more of RACKFLOW_*, by their names in lower case.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith("RACKFLOW_") or k == "RACKFLOW_CACHE"}
    run_dir = f"/run/{base.name}"
    env |= {f"RACKFLOW_{name.upper()}": value for name, value in settings.items()}
    env |= {
        "RACKFLOW_DATA_DIR": str(base / "data"),
        "RACKFLOW_RUN_DIR": run_dir,
        "LAB_DIR": str(lab_dir or base / "lab"),
        "RACKFLOW_API_PORT": "auto",
        "RACKFLOW_PREFECT_PORT": "auto",
    }
    self = Cloud(base, env, "", "")
    _remove(self, with_lab=lab_dir is None, check=True)
    base.mkdir(parents=True)
    try:
        say("starting rackflow and the lab")
        up = subprocess.Popen([RACKFLOW, "up", "--detach"], env=env, stdout=sys.stderr)
        if lab_dir is None:
            self.rackflow("lab", "up", *lab)
        if up.wait() != 0:
            raise RuntimeError("rackflow did not come up")
        self.find()
        say("enrolling hosts, importing images")
        self.rackflow("apply", "-f", str(Path(env["LAB_DIR"], "lab.yaml")))
        yield self
    finally:
        _remove(self, with_lab=lab_dir is None, check=False)


def _remove(found: Cloud, *, with_lab: bool, check: bool) -> None:
    """Take a rackflow down and delete its folder. check: raise RuntimeError and delete nothing if it does not end."""
    found.rackflow("down", check=check)
    if with_lab:
        found.rackflow("lab", "down", check=check)
    shutil.rmtree(found.base, ignore_errors=True)
