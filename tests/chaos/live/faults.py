"""What goes wrong on real hosts, and how all is well again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from bench.cloud import Cloud
from tests.labs import Lab
from tests.live.guests import bring_up, until

DAEMONS = {"kvm": "libvirtd", "lxd": "lxd"}
ASK = {"kvm": "virsh uri", "lxd": "lxc list"}


class LiveFault(StrEnum):
    WORKER = "worker killed"
    FRONT_END = "front-end killed"
    DAEMON = "hypervisor daemon killed"
    SSH = "sshd killed"
    POWER = "power loss"


def strike(fault: LiveFault, cloud: Cloud, lab: Lab, host: str) -> Callable[[], None]:
    """Let it happen, on a host; return what waits until all is well."""
    kind = next(str(row["kind"]) for row in lab.status() if row["name"] == host)
    if fault is LiveFault.WORKER:
        _kill(cloud, "worker")
    elif fault is LiveFault.FRONT_END:
        _kill(cloud, "supervisor")  # all its processes die with it
        bring_up(cloud)
    elif fault is LiveFault.DAEMON:
        lab.run(host, f"kill -9 $(pgrep -xo {DAEMONS[kind]})")  # not what it has started
    elif fault is LiveFault.SSH:
        lab.run(host, "pkill -9 -x sshd", check=False)  # this session too
    else:
        lab.call("crash", host)
        lab.call("start", host)
    return lambda: _answers(lab, host, kind)


def _kill(cloud: Cloud, process: str) -> None:
    os.kill(int(Path(cloud.env["RACKFLOW_RUN_DIR"], f"{process}.pid").read_text()), signal.SIGKILL)


def _answers(lab: Lab, host: str, kind: str) -> None:
    until(lambda: lab.run(host, f"{ASK[kind]} >/dev/null 2>&1 && echo yes", check=False) == "yes\n", 60)
