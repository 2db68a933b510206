"""A VM goes from a VMware host, a simulated one, to a real KVM host, boots there, and comes back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cloud import Cloud
from core.ids import on_host
from lab import vsphere
from tests.labs import Lab
from tests.live.guests import WORD, Guest, awake, begin, ended, make, only

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def vmware(front_end: Cloud, lab: Lab) -> Iterator[str]:
    """The name of a VMware host that is enrolled."""
    if not Path(os.environ.get("RACKFLOW_VCSIM") or Path(sys.prefix) / "bin" / "vcsim").exists():
        pytest.skip("no vcsim here: setup_vcsim in scripts/lib/setup.sh builds it, with Go 1.23 or newer")
    lab.call("vsphere")
    front_end.rackflow("apply", "-f", str(lab.dir / "vsphere.yaml"))
    yield vsphere.NAME
    front_end.rackflow("host", "retire", vsphere.NAME, "--yes")
    vsphere.stop()


def test_from_vmware_to_kvm_and_back(front_end: Cloud, lab: Lab, vmware: str) -> None:
    guest = Guest(front_end, "from-vmware")
    try:
        with only(front_end, vmware):
            make(front_end, guest.name, "tiny", 128, {})
        assert (guest.show()["host"], guest.show()["state"]) == (vmware, "running")
        moved = ended(front_end, begin(guest, "migrate", host="h1"))
        assert (moved["verb"], moved["state"]) == ("migrate", "done"), moved["error"]
        awake(guest)
        guest.write(WORD)
        name = on_host(guest.show()["id"])
        assert name in lab.run("h1", "virsh list --name")
        assert ended(front_end, begin(guest, "migrate", host=vmware))["state"] == "done"
        assert name not in lab.run("h1", "virsh list --all --name")
        assert ended(front_end, begin(guest, "migrate", host="h2"))["state"] == "done"
        awake(guest)
        assert guest.read() == WORD, "what it wrote on KVM went to VMware and back"
    finally:
        front_end.run("instance", "delete", guest.name, "--yes")
