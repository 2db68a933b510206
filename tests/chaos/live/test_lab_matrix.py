"""Each verb and each fault once on real hosts, at a moment that a seed draws; what the guest wrote is still there.

RACKFLOW_CHAOS_SEED: of the moments. RACKFLOW_CHAOS_CASES: only that many pairs, drawn by the seed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.error import HTTPError

import pytest

from bench.cloud import Cloud
from core.states import InstanceState
from tests.labs import Lab
from tests.live.guests import WORD, Guest, begin, box_on, ended, reconcile, until, vm_on
from tests.live.test_main_job import traces

SEED = int(os.environ.get("RACKFLOW_CHAOS_SEED", "1"))
LATEST_S = 6.0  # after the request: the moments lie before that
LASTS_S = 5.0  # how long a host stays away
NIC = {"network": "lan"}
DISK = {"name": "data", "size": "32MiB"}

Verb = tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]  # what it is asked with; what is done before it
OFF = ("shutdown", {"grace_s": 1})
VERBS: dict[str, Verb] = {
    "start": ({}, [OFF]), "shutdown": ({"grace_s": 2}, []), "poweroff": ({}, []), "reboot": ({"grace_s": 2}, []),
    "suspend": ({}, []), "resume": ({}, [("suspend", {})]), "stop": ({}, []), "restore": ({}, [("stop", {})]),
    "undeploy": ({"grace_s": 2}, []), "redeploy": ({}, [("undeploy", {"grace_s": 1})]),
    "migrate": ({"live": False, "grace_s": 2}, []), "migrate-live": ({"live": True}, []),
    "rename": ({"name": "chaos-2"}, []), "resize": ({"memory": "144MiB"}, [OFF]),
    "attach-disk": ({"disk": DISK}, []), "detach-disk": ({"disk": "data"}, [("attach-disk", {"disk": DISK})]),
    "grow-disk": ({"disk": "data", "size": "64MiB"}, [("attach-disk", {"disk": DISK})]),
    "attach-nic": ({"nic": NIC}, []), "detach-nic": ({"nic": 1}, [("attach-nic", {"nic": NIC})]),
    "snapshot": ({"snapshot": "s"}, []), "revert": ({"snapshot": "s"}, [("snapshot", {"snapshot": "s"})]),
    "drop-snapshot": ({"snapshot": "s"}, [("snapshot", {"snapshot": "s"})]),
    "backup": ({"backup": "b"}, []), "revert-backup": ({"backup": "b", "grace_s": 2}, [("backup", {"backup": "b"})]),
}  # fmt: skip
WORDS = {"restore": "start", "redeploy": "start", "migrate-live": "migrate"}
NOT_OF_CONTAINERS = {"stop", "restore", "migrate-live"}


class Scene:
    """One guest on one host, and an operation that is under way."""

    def __init__(self, lab: Lab, guest: Guest, host: str) -> None:
        self.lab, self.guest, self.host = lab, guest, host
        self.daemon = "libvirtd" if host in lab.hosts("kvm") else "lxd"
        self.op_id = ""


def _worker(at: Scene) -> None:
    rows = json.loads(at.guest.cloud.rackflow("status", "-o", "json"))["processes"]
    subprocess.run(["kill", "-9", str(next(row["pid"] for row in rows if row["name"] == "worker"))], check=True)


def _daemon(at: Scene) -> None:
    at.lab.run(at.host, f"kill -9 $(pgrep -xo {at.daemon})")


def _sshd(at: Scene) -> None:
    """End the connections of rackflow, not the one that listens."""
    at.lab.run(at.host, "kill -9 $(pgrep -x sshd | tail -n +2)", check=False)  # its own among them


def _power(at: Scene) -> None:
    at.lab.call("crash", at.host)
    time.sleep(LASTS_S)
    at.lab.call("start", at.host)


def _cancel(at: Scene) -> None:
    with suppress(HTTPError):  # it has ended
        at.guest.cloud.call("POST", f"/v1/operations/{at.op_id}/cancel")


def _delete(at: Scene) -> None:
    at.guest.cloud.call("DELETE", f"/v1/instances/{at.guest.name}")


FAULTS: dict[str, Callable[[Scene], None]] = {
    "worker": _worker, "daemon": _daemon, "sshd": _sshd, "power": _power, "cancel": _cancel, "delete": _delete,
}  # fmt: skip


def _pairs() -> list[tuple[str, str, str]]:
    """Return (verb, fault, kind): each pair of verb and fault once, on the kind that is its turn."""
    draw = random.Random(SEED)
    pairs = []
    for number, (verb, fault) in enumerate((verb, fault) for verb in VERBS for fault in FAULTS):
        kind = "vm" if verb in NOT_OF_CONTAINERS or number % 2 else "container"
        pairs.append((verb, fault, kind))
    count = int(os.environ.get("RACKFLOW_CHAOS_CASES", len(pairs)))
    return sorted(draw.sample(pairs, min(count, len(pairs))))


@pytest.fixture
def scene(request: pytest.FixtureRequest, front_end: Cloud, lab: Lab) -> Iterator[Scene]:
    """A guest of the kind asked for, that has written a word."""
    kvm = request.param == "vm"
    host = lab.hosts("kvm" if kvm else "lxd")[0]
    with (vm_on if kvm else box_on)(front_end, "chaos", host) as guest:
        yield Scene(lab, guest, host)


@pytest.mark.parametrize(("verb", "fault", "scene"), _pairs(), indirect=["scene"])
def test_verb_and_fault(front_end: Cloud, lab: Lab, scene: Scene, verb: str, fault: str) -> None:
    """It ends, in a state that may last; the word is there; after a delete there is nothing."""
    guest, (body, before) = scene.guest, VERBS[verb]
    for word, given in before:
        guest.do(word, **given)
    instance_id = guest.show()["id"]
    scene.op_id = begin(guest, WORDS.get(verb, verb), **body)
    time.sleep(random.Random(f"{SEED} {verb} {fault}").uniform(0, LATEST_S))  # the moment
    FAULTS[fault](scene)
    op = ended(front_end, scene.op_id, 300)
    assert op["state"] != "held", op["error"]
    reconcile(front_end)
    reconcile(front_end)
    left = [one for one in front_end.call("GET", "/v1/instances") if one["id"] == instance_id]
    if fault == "delete":
        assert left == []
    else:
        guest.name = left[0]["name"]
        assert InstanceState(left[0]["state"]) in (
            InstanceState.RUNNING, InstanceState.OFF, InstanceState.SUSPENDED, InstanceState.STOPPED,
            InstanceState.UNDEPLOYED,
        ), left[0]  # fmt: skip
        if left[0]["state"] != InstanceState.RUNNING:
            guest.do("start")
        assert guest.read() == WORD
        front_end.rackflow("instance", "delete", guest.name, "--yes")
    until(lambda: traces(lab, instance_id) == [], 60)
