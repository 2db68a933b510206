"""The process behind the lab's BMCs: start, end, find."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lab import processes
from lab.settings import LabSettings

USER = "lab"
_MODULE = "lab.bmc"
_START_S = 20.0


def password_file(settings: LabSettings) -> Path:
    """Return the file that holds the BMCs' password."""
    return settings.dir / "bmc.password"


def password(settings: LabSettings) -> str:
    """Return the BMCs' password, made unless it is there."""
    file = password_file(settings)
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(f"{secrets.token_hex(16)}\n")
    return file.read_text().strip()


def start(settings: LabSettings) -> bool:
    """Start the BMCs and wait until they listen; False when they run. Raise HostFault (the port is taken)."""
    if list(pids()):
        return False
    password(settings)
    log = settings.dir / "bmc.log"
    argv = [sys.executable, "-m", _MODULE, str(settings.dir), str(settings.bmc_port)]
    with log.open("wb") as out:
        none = subprocess.DEVNULL
        made = subprocess.Popen(
            argv, stdin=none, stdout=out, stderr=out, start_new_session=True, cwd=Path(__file__).resolve().parents[1]
        )
    processes.until_told(made, log, "serving", _START_S, f"the lab's BMC at port {settings.bmc_port}")
    return True


def stop() -> None:
    """End the BMCs, also those of a lab whose folder is gone."""
    processes.end(1, "-m", _MODULE)


def pids() -> Iterator[int]:
    """Return the processes that serve a lab's BMCs."""
    return processes.like(1, "-m", _MODULE)
