"""The machine room as a process in the background: start it, end it, find it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from core.errors import HostFault
from lab import images
from lab.baremetal.site import READY
from lab.hosts import wait_until
from lab.settings import LabSettings

_MODULE = "lab.baremetal"
_START_S, _STOP_S = 240.0, 90.0


def up(settings: LabSettings, count: int) -> Path:
    """Start servers and all they need, unless they are up; return the file that describes them. Raise HostFault."""
    folder = settings.dir / "baremetal"
    ready = folder / READY
    if pid(settings) is not None:
        return ready
    for name in ("ramdisk", "hypervisor"):
        images.build(settings, name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ready.unlink(missing_ok=True)
    with (folder / "room.log").open("wb") as out:
        made = subprocess.Popen(
            [sys.executable, "-m", _MODULE, str(count)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True, cwd=Path(__file__).resolve().parents[2],
        )  # fmt: skip
    (folder / "room.pid").write_text(str(made.pid))
    end = time.monotonic() + _START_S
    while not ready.exists():
        if made.poll() is not None or time.monotonic() > end:
            said = " / ".join((folder / "room.log").read_text(errors="replace").splitlines()[-3:])
            raise HostFault(f"the machine room did not start: {said}", "lab", fix=f"see {folder}")
        time.sleep(0.1)
    return ready


def down(settings: LabSettings) -> bool:
    """End all of it; False when it was not up."""
    found = pid(settings)
    if found is None:
        return False
    os.kill(found, signal.SIGTERM)
    wait_until(lambda: pid(settings) is None, limit_s=_STOP_S)
    if pid(settings) is not None:
        raise HostFault(f"the machine room (process {found}) does not end", "lab")
    return True


def pid(settings: LabSettings) -> int | None:
    """Return its process, if it lives."""
    try:
        found = int((settings.dir / "baremetal" / "room.pid").read_text())
        words = Path(f"/proc/{found}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return found if _MODULE.encode() in words else None
