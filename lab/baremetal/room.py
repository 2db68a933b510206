"""The machine room as a process in the background: start it, end it, find it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from core.errors import HostFault
from lab import images
from lab.baremetal.pxe import BRIDGE
from lab.baremetal.site import READY, folder
from lab.hosts import wait_until
from lab.settings import LabSettings
from lab.shell import ip

_MODULE = "lab.baremetal"
_OURS = (b"dnsmasq", b"libvirtd", b"qemu-system", b"http.server", b"ironic", b"sushy_tools")  # what a room runs
_START_S, _STOP_S = 240.0, 90.0


def up(settings: LabSettings, count: int, role: str = "") -> Path:
    """Start servers and all they need, unless they are up; return the file that describes them. Raise HostFault."""
    here = folder(settings)
    ready = here / READY
    if pid(settings) is not None:
        return ready
    _clear(here)
    for name in ("ramdisk", "hypervisor"):
        images.build(settings, name)
    here.mkdir(parents=True, exist_ok=True, mode=0o700)
    ready.unlink(missing_ok=True)
    with (here / "room.log").open("wb") as out:
        made = subprocess.Popen(
            [sys.executable, "-m", _MODULE, str(count), role], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True, cwd=Path(__file__).resolve().parents[2],
        )  # fmt: skip
    (here / "room.pid").write_text(str(made.pid))
    end = time.monotonic() + _START_S
    while not ready.exists():
        if made.poll() is not None or time.monotonic() > end:
            said = " / ".join((here / "room.log").read_text(errors="replace").splitlines()[-3:])
            raise HostFault(f"the machine room did not start: {said}", "lab", fix=f"see {here}")
        time.sleep(0.1)
    return ready


def down(settings: LabSettings) -> bool:
    """End all of it, also what a room left whose process was killed; False when there was nothing."""
    found = pid(settings)
    if found is None:
        return _clear(folder(settings))
    os.kill(found, signal.SIGTERM)
    wait_until(lambda: pid(settings) is None, limit_s=_STOP_S)
    if pid(settings) is not None:
        raise HostFault(f"the machine room (process {found}) does not end", "lab")
    return True


def _clear(here: Path) -> bool:
    """End what a killed room left: processes that name its folder, and the bridge."""
    strays = list(_strays(here))
    for stray in strays:
        with suppress(ProcessLookupError):
            os.kill(stray, signal.SIGKILL)
    if strays:
        wait_until(lambda: not list(_strays(here)))
        ip(f"link del {BRIDGE}", check=False)
    return bool(strays)


def _strays(here: Path) -> Iterator[int]:
    mark = f"{here}/".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
            where = os.readlink(entry / "cwd").encode()  # Ironic's worker names no file
        except OSError:
            continue  # it ended while we looked
        if mark in words + where and any(one in words for one in _OURS):
            yield int(entry.name)


def pid(settings: LabSettings) -> int | None:
    """Return its process, if it lives."""
    try:
        found = int((folder(settings) / "room.pid").read_text())
        words = Path(f"/proc/{found}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return found if _MODULE.encode() in words else None
