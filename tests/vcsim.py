"""govmomi's simulator of vSphere as a process on loopback, for tests of the VMware drivers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from core.settings import DriverSettings
from drivers.transport.base import Endpoint
from drivers.transport.certificate import KIND, scan_certificate, trusting

BINARY = Path(os.environ.get("RACKFLOW_VCSIM") or Path(sys.prefix) / "bin" / "vcsim")
SETTINGS = DriverSettings(command_timeout_s=10.0, connect_timeout_s=5.0)
CLUSTER = "DC0/DC0_C0"
HOSTS = (f"{CLUSTER}/DC0_C0_H0", f"{CLUSTER}/DC0_C0_H1")


@dataclass(frozen=True)
class Vcsim:
    """A running simulator. key_file: its password; place: what is meant as the host by default."""

    port: int
    key_file: Path
    thumbprint: str
    pem: str
    place: str
    pid: int

    def endpoint(self, name: str = "e1", place: str | None = None) -> Endpoint:
        """Return how to reach it, its certificate pinned."""
        where = self.place if place is None else place
        return Endpoint(name, "127.0.0.1", self.port, "user", self.key_file, f"{KIND} {self.thumbprint}", where)

    def control(self, **what: object) -> None:
        """Let something go wrong: see lab/vcsim/main.go for what can."""
        url = f"https://127.0.0.1:{self.port}/_ctl?{urlencode(what)}"
        with urllib.request.urlopen(url, data=b"", timeout=5, context=trusting(self.pem)):
            pass

    def calls(self) -> Counter[str]:
        """Return how often each method was called, by anybody."""
        url = f"https://127.0.0.1:{self.port}/_ctl?calls"
        with urllib.request.urlopen(url, timeout=5, context=trusting(self.pem)) as answer:
            return Counter(json.load(answer))


@contextmanager
def vcsim(folder: Path, *options: str, place: str = "") -> Iterator[Vcsim]:
    """Run a simulator; where there is none, skip, by name."""
    if not BINARY.exists():
        pytest.skip("no vcsim here: setup_vcsim in scripts/lib/setup.sh builds it, with Go 1.23 or newer")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([BINARY, *options], text=True, **pipes) as process:
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            assert words[:1] == ["READY"], "vcsim did not start"
            key_file = folder / "password"
            key_file.write_text("pass\n")
            port = int(words[1].rpartition(":")[2])
            pem, thumbprint = scan_certificate("127.0.0.1", port)
            yield Vcsim(port, key_file, thumbprint, pem, place, process.pid)
        finally:
            process.terminate()
