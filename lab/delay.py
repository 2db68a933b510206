"""A long line to one host: start and stop the relay that delays, loses and throttles its management frames."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from core.errors import HostFault
from lab import hosts
from lab.settings import SWITCH, LabSettings
from lab.topology import LabHost

_RELAY = Path(__file__).with_name("relay.py")


def set_delay(settings: LabSettings, host: LabHost, one_way_ms: float, loss_percent: float, rate_kbit: float) -> None:
    """Delay each direction by one_way_ms, lose loss_percent, allow rate_kbit/s (0: no limit); all 0 takes it away."""
    suspend(settings, host)
    note = _note(settings, host)
    if one_way_ms == loss_percent == rate_kbit == 0:
        note.unlink(missing_ok=True)
        return
    note.write_text(f"{one_way_ms:g} {loss_percent:g} {rate_kbit:g}\n")
    resume(settings, host)


def current(settings: LabSettings, host: LabHost) -> float:
    """Return the one-way delay in ms, 0 for none."""
    note = _note(settings, host)
    return float(note.read_text().split()[0]) if note.exists() else 0.0


def resume(settings: LabSettings, host: LabHost) -> None:
    """Start the relay if the host's line has a delay and it does not run. Raise HostFault if it cannot."""
    note = _note(settings, host)
    if not note.exists() or relay_pid(settings, host) is not None:
        return
    log = hosts.folder(settings, host) / "relay.log"
    argv = ["ip", "netns", "exec", SWITCH, sys.executable, str(_RELAY), host.name, *note.read_text().split()]
    with log.open("wb") as out:
        none = subprocess.DEVNULL
        relay = subprocess.Popen(argv, stdin=none, stdout=out, stderr=out, start_new_session=True, cwd="/")
    _pid_file(settings, host).write_text(f"{relay.pid}\n")
    deadline = time.monotonic() + 5
    while b"relaying" not in log.read_bytes():
        if relay.poll() is not None or time.monotonic() > deadline:
            raise HostFault(f"the relay of {host.name} did not start: {log.read_text().strip()}", f"host/{host.name}")
        time.sleep(0.05)


def suspend(settings: LabSettings, host: LabHost) -> None:
    """Stop the relay; it puts the host's port back itself."""
    pid = relay_pid(settings, host)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        hosts.wait_until(lambda: relay_pid(settings, host) is None)
    _pid_file(settings, host).unlink(missing_ok=True)


def relay_pid(settings: LabSettings, host: LabHost) -> int | None:
    """Return the relay's process, told from a stranger of that number by its command line; None when there is none."""
    try:
        pid = int(_pid_file(settings, host).read_text())
        return pid if str(_RELAY).encode() in Path(f"/proc/{pid}/cmdline").read_bytes() else None
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None


def _note(settings: LabSettings, host: LabHost) -> Path:
    return hosts.folder(settings, host) / "delay"


def _pid_file(settings: LabSettings, host: LabHost) -> Path:
    return hosts.folder(settings, host) / "relay.pid"
