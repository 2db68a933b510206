"""Which hosts were configured by us, and the drift that is written where they lack something later."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from control import configuring, drift, hosts, operations, tables
from control.hosts import HostRecord
from core.errors import Conflict, Unsupported
from core.states import OperationState, Verb
from tests.rig import Rig


@pytest.fixture
def kvm(cloud: Rig) -> HostRecord:
    """h1 as a host of kind kvm."""
    t = tables.host
    cloud.run(lambda c: c.execute(sa.update(t).where(t.c.live_name == "h1").values(driver="kvm")))
    return cloud.run(lambda c: hosts.get(c, "h1"))


def open_drift(cloud: Rig) -> list[Any]:
    rows = cloud.run(lambda c: drift.list_(c, cloud.admin))
    return [(row["subject"], row["kind"], row["policy"], row["seen"]["missing"]) for row in rows]


def test_a_host_is_ours_to_look_after_once_it_was_configured(cloud: Rig, kvm: HostRecord) -> None:
    assert not cloud.run(lambda c: configuring.was_configured(c, kvm))
    (op,) = cloud.submit(Verb.CONFIGURE, {"hosts": ["h1"]}).operations
    with pytest.raises(Conflict):
        cloud.submit(Verb.CONFIGURE, {"hosts": ["h1"]})
    assert not cloud.run(lambda c: configuring.was_configured(c, kvm))
    (claimed,) = cloud.claim()
    assert claimed.id == op.id
    cloud.run(lambda c: operations.finish(c, claimed, OperationState.DONE))
    assert cloud.run(lambda c: configuring.was_configured(c, kvm))


def test_what_it_lacks_is_told_once_and_is_over_when_it_is_there(cloud: Rig, kvm: HostRecord) -> None:
    for _ in range(2):
        cloud.run(lambda c: configuring.note(c, kvm, ["install qemu-utils"]))
    assert open_drift(cloud) == [(f"host/{kvm.id}", "configuration", drift.ALERT, ["install qemu-utils"])]
    cloud.run(lambda c: configuring.note(c, kvm, []))
    assert open_drift(cloud) == []


def test_simulated_hosts_are_not_configured(cloud: Rig) -> None:
    with pytest.raises(Unsupported, match="h2 is of kind fake"):
        cloud.submit(Verb.CONFIGURE, {"hosts": ["h2"]})
