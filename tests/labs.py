"""The lab as tests use it: by its command line, as a person would."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivers.transport.base import Endpoint
from lab.settings import OWNER_FILE

ROOT = Path(__file__).resolve().parents[1]
TEST_DIR = Path("/var/tmp/rackflow-test-lab")
_LOCK = Path("/run/lock/rackflow-tests.lock")
_WAIT_S = 900  # for another run of the tests on this machine


@dataclass(frozen=True)
class Lab:
    """A lab in a folder, which may not be up. hosts() tells what it has."""

    dir: Path

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "LAB_DIR": str(self.dir)}

    @property
    def key(self) -> Path:
        return self.dir / "id_ed25519"

    @property
    def blueprint(self) -> Path:
        """lab.yaml, for `rackflow apply -f`."""
        return self.dir / "lab.yaml"

    def call(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run python -m lab WORDS; what it printed is in the failure."""
        argv = [sys.executable, "-m", "lab", *words]
        done = subprocess.run(argv, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False, timeout=300)
        assert not check or done.returncode == 0, f"lab {' '.join(words)}: {done.stdout}{done.stderr}"
        return done

    def run(self, host: str, command: str, *, user: str = "root", check: bool = True) -> str:
        """Run a shell command on a host over SSH and return what it printed."""
        argv = ["ssh", "-F", str(self.dir / "ssh_config"), "-o", "ConnectTimeout=5", "-l", user, host, command]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, f"{host}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def status(self) -> list[dict[str, Any]]:
        """Return `lab status -o json`."""
        rows: list[dict[str, Any]] = json.loads(self.call("status", "-o", "json").stdout)
        return rows

    def hosts(self, kind: str = "") -> list[str]:
        """Return the hosts' names, of one kind if named."""
        return [row["name"] for row in self.status() if kind in ("", row["kind"])]

    def endpoint(self, host: str, *, user: str = "root") -> Endpoint:
        """Return where a host is and its pinned host key, for the drivers."""
        for line in (self.dir / "known_hosts").read_text().splitlines():
            names, algorithm, public = line.split()
            address, name = names.split(",")
            if name == host:
                return Endpoint(host, address, user=user, key_file=self.key, host_key=f"{algorithm} {public}")
        raise LookupError(f"the lab has no host {host}")


@contextmanager
def alone() -> Iterator[None]:
    """Be the only run of tests with a lab on this machine, and begin without what a killed one left.

    Another run is waited for, 15 minutes at the most. A lab that no test made is left alone: `lab down` says whose.
    """
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK.open("w") as lock:
        until = time.monotonic() + _WAIT_S
        while not _got(lock.fileno()):
            assert time.monotonic() < until, "another run of the tests with a lab is under way on this machine"
            time.sleep(1)
        Lab(_left() or TEST_DIR).call("down")
        yield


def _left() -> Path | None:
    """Return the folder of the lab that is up on this machine, if tests made it."""
    if not OWNER_FILE.exists():
        return None
    owner = Path(OWNER_FILE.read_text().strip())
    return owner if owner == TEST_DIR or any(part.startswith("pytest-") for part in owner.parts) else None


def _got(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
