"""Which TCP ports the listeners get: set by the user, remembered from last time, preferred, or any free one."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from core.errors import Conflict
from core.settings import Settings
from daemon.files import write_private
from daemon.settings import AUTO

PREFERRED = {"api_port": 4210, "prefect_port": 4200}


def is_free(host: str, port: int) -> bool:
    """Say whether a listener could be opened there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def any_free(host: str) -> int:
    """Return a port that the kernel says is free."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def choose(
    wanted: Mapping[str, int], remembered: Mapping[str, int], free: Callable[[int], bool], any_: Callable[[], int],
) -> dict[str, int]:
    """Return a port for each name. A port that was set must be free, else Conflict; AUTO takes what is free."""
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        if port != AUTO:
            if not free(port):
                raise Conflict(
                    f"port {port} ({name}) is in use by another program", f"port/{port}",
                    fix=f"stop that program, or set RACKFLOW_{name.upper()} to another port or to auto",
                )
            chosen[name] = port
            continue
        candidates = [p for p in (remembered.get(name, AUTO), PREFERRED[name]) if p != AUTO]
        good = [p for p in candidates if p not in chosen.values() and p not in wanted.values() and free(p)]
        chosen[name] = good[0] if good else any_()
    return chosen


def settle(settings: Settings) -> Settings:
    """Return the settings with real ports, and remember them in data_dir/ports.json."""
    file = settings.paths.data_dir / "ports.json"
    wanted = {name: int(getattr(settings, name)) for name in PREFERRED}
    host = settings.api_host
    chosen = choose(wanted, _read(file), lambda port: is_free(host, port), lambda: any_free(host))
    write_private(file, json.dumps(chosen) + "\n", mode=0o644)
    return dataclasses.replace(settings, api_port=chosen["api_port"], prefect_port=chosen["prefect_port"])


def _read(file: Path) -> dict[str, int]:
    try:
        found = json.loads(file.read_text())
        return {name: int(found[name]) for name in PREFERRED if name in found}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
