"""What goes wrong on real hosts, and how all is well again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from bench.cloud import Cloud
from tests.labs import Lab

DAEMONS = {"kvm": "libvirtd", "lxd": "lxd"}


class LiveFault(StrEnum):
    WORKER = "worker killed"
    DAEMON = "hypervisor daemon killed"
    SSH = "sshd killed"
    POWER = "power loss"


def strike(fault: LiveFault, cloud: Cloud, lab: Lab, host: str) -> Callable[[], None]:
    """Let it happen, on a host; return what heals it. All but power comes back by itself."""
    if fault is LiveFault.WORKER:
        os.kill(int(Path(cloud.env["RACKFLOW_RUN_DIR"], "worker.pid").read_text()), signal.SIGKILL)
    elif fault is LiveFault.DAEMON:
        lab.run(host, f"pkill -9 -x {DAEMONS[_kind(lab, host)]}", check=False)
    elif fault is LiveFault.SSH:
        lab.run(host, "pkill -9 -x sshd", check=False)  # this session too
    else:
        lab.call("crash", host)
        return lambda: _power_on(lab, host)
    return lambda: None


def _kind(lab: Lab, host: str) -> str:
    return next(str(row["kind"]) for row in lab.status() if row["name"] == host)


def _power_on(lab: Lab, host: str) -> None:
    lab.call("start", host)
