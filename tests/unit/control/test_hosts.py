"""Hosts: enrolled, seen, unreachable, disabled, faulty, retired; and what reaches them."""

from __future__ import annotations

from typing import Any

import pytest

from control import datastores, host_looks, hosts, networks, operations
from control.hosts import HostRecord
from core.errors import Conflict, CredentialRejected, Denied, HostFault, NotFound, Unreachable
from core.states import HostState, OperationState, Verb
from tests.rig import Rig


def record(cloud: Rig, name: str) -> HostRecord:
    return cloud.run(lambda c: hosts.get(c, name))


def put(cloud: Rig, name: str, state: HostState, error: Any = None) -> bool:
    return cloud.run(lambda c: hosts.set_state(c, hosts.get(c, name).id, state, error))


def see(cloud: Rig, name: str, bridges: dict[str, str] | None = None, free_mib: int = 500) -> None:
    def seen(c: Any) -> None:
        store = datastores.by_name(c, ["local"])["local"].id
        there = {"br0": "10.9.0.1/24"} if bridges is None else bridges
        host_looks.write(c, {hosts.get(c, name).id: host_looks.Seen([(store, 1000, free_mib)], there)})

    cloud.run(seen)


def enroll(cloud: Rig, **spec: Any) -> None:
    cloud.submit(Verb.ENROLL, {"hosts": [{"name": "h1", "address": "10.5.5.5", **spec}]})


def test_declared_capacity_goes_before_what_was_found(cloud: Rig) -> None:
    cloud.host("h3", cpus=16, memory_mib=65536, labels={"a": "b"})
    cloud.submit(Verb.ENROLL, {"hosts": [{"name": "h4", "address": "10.5.5.5", "cpus": 2, "memory": "1GiB"}]})
    (op,) = cloud.claim()
    assert record(cloud, "h4").state is HostState.ENROLLING
    cloud.run(lambda c: hosts.record_enrolled(
        c, op, op.subject_id, driver="kvm", host_key="k", facts={}, capabilities={}, cpus=64, memory_mib=99999
    ))  # fmt: skip
    h3, h4 = record(cloud, "h3"), record(cloud, "h4")
    assert (h3.cpus, h3.memory_mib, h3.labels) == (16, 65536, {"a": "b"})
    assert (h4.cpus, h4.memory_mib, h4.state, h4.kinds) == (2, 1024, HostState.READY, ("vm",))


def test_an_enrollment_that_fails_leaves_a_faulty_host_that_can_be_enrolled_again(rig: Rig) -> None:
    enroll(rig)
    (op,) = rig.claim()
    error = HostFault("no libvirtd there", "host/h1")
    rig.run(lambda c: operations.finish(c, op, OperationState.HELD, error=error))
    found = record(rig, "h1")
    assert (found.state, found.error) == (HostState.FAULTY, error.to_dict())
    with pytest.raises(Conflict, match="is not enrolled"):
        put(rig, "h1", HostState.READY)
    enroll(rig)
    assert record(rig, "h1").state is HostState.ENROLLING
    assert record(rig, "h1").id == found.id


def test_a_machine_is_enrolled_once(cloud: Rig) -> None:
    address = record(cloud, "h2").address
    with pytest.raises(Conflict, match="is host h2 already"):
        enroll(cloud, address=address)
    with pytest.raises(Exception, match="stands twice"):
        cloud.submit(Verb.ENROLL, {"hosts": [{"name": n, "address": "10.7.7.7"} for n in ("x", "y")]})


def test_a_host_with_instances_cannot_become_another_machine(cloud: Rig) -> None:
    cloud.deploy("a", requirements={"host": "h1"})
    with pytest.raises(Conflict, match="cannot become another machine"):
        enroll(cloud)
    cloud.delete("a")
    enroll(cloud)
    found = record(cloud, "h1")
    assert (found.address, found.host_key) == ("10.5.5.5", ""), "the new machine's key is pinned anew"


def test_a_ready_host_that_is_enrolled_again_stays_ready(cloud: Rig) -> None:
    enroll(cloud, address=record(cloud, "h1").address, labels={"new": "yes"})
    found = record(cloud, "h1")
    assert (found.state, found.labels, found.host_key) == (HostState.READY, {"new": "yes"}, "ssh-ed25519 AAAA")


def test_observations_do_not_enable_what_an_operator_disabled(cloud: Rig) -> None:
    cloud.run(lambda c: hosts.disable(c, cloud.admin, "h1"))
    assert not put(cloud, "h1", HostState.UNREACHABLE, Unreachable("no answer"))
    assert record(cloud, "h1").state is HostState.DISABLED
    see(cloud, "h1")
    assert record(cloud, "h1").state is HostState.DISABLED
    assert cloud.run(lambda c: hosts.enable(c, cloud.admin, "h1"))
    assert not cloud.run(lambda c: hosts.enable(c, cloud.admin, "h1"))
    with pytest.raises(Denied):
        cloud.run(lambda c: hosts.disable(c, cloud.user("eve"), "h1"))


@pytest.mark.parametrize(
    ("state", "error"),
    [(HostState.UNREACHABLE, Unreachable("no answer")), (HostState.FAULTY, CredentialRejected("another key"))],
)
def test_a_host_that_answers_again_is_ready_again(cloud: Rig, state: HostState, error: Any) -> None:
    before = record(cloud, "h1")
    assert put(cloud, "h1", state, error)
    assert not put(cloud, "h1", state, error)
    lost = record(cloud, "h1")
    assert (lost.state, lost.error) == (state, error.to_dict())
    assert lost.version > before.version
    see(cloud, "h1")
    back = record(cloud, "h1")
    assert (back.state, back.error) == (HostState.READY, None)
    assert [(e["from"], e["to"]) for e in cloud.events("host") if e["host"] == "h1"] == [
        ("enrolling", "ready"), ("ready", state), (state, "ready"),
    ]  # fmt: skip


def test_a_look_says_what_reaches_a_host(cloud: Rig) -> None:
    def reach(name: str) -> tuple[list[str], list[int]]:
        shown = cloud.run(lambda c: hosts.show(c, cloud.admin, name))
        return [n["name"] for n in shown["networks"]], [d["free_mib"] for d in shown["datastores"]]

    see(cloud, "h1", free_mib=7)
    assert reach("h1") == (["lan"], [7])
    see(cloud, "h1", bridges={})
    assert reach("h1") == ([], [500])
    assert reach("h2")[0] == ["lan"]


def test_a_network_made_later_reaches_hosts_by_what_was_seen(cloud: Rig) -> None:
    see(cloud, "h1", bridges={"br0": "10.9.0.1/24", "lxcbr0": "10.0.3.1/24"})
    cloud.network(
        name="box", bridge="lxcbr0", addressing="host", subnet=None, gateway=None, ranges=[], default_for=[]
    )
    shown = cloud.run(lambda c: networks.show(c, cloud.admin, "box"))
    assert shown["hosts"] == [{"host": "h1", "cidr": "10.0.3.1/24"}]
    assert (shown["ranges"], shown["free"]) == ([{"first": "10.0.3.2", "last": "10.0.3.254"}], 253)
    see(cloud, "h1", bridges={"lxcbr0": "10.0.4.1/29"})  # the bridge was given another subnet
    shown = cloud.run(lambda c: networks.show(c, cloud.admin, "box"))
    assert shown["ranges"] == [{"first": "10.0.4.2", "last": "10.0.4.6"}]


def test_retirement_wants_an_empty_host_or_force(cloud: Rig) -> None:
    cloud.deploy("a", requirements={"host": "h1"})
    with pytest.raises(Conflict, match="holds 1 instances"):
        cloud.submit(Verb.RETIRE, {"hosts": ["h1"]})
    cloud.submit(Verb.RETIRE, {"hosts": ["h1"], "force": True})
    assert record(cloud, "h1").state is HostState.DISABLED, "nothing more is placed there"
    (op,) = cloud.claim()
    error = Unreachable("no answer")
    cloud.run(lambda c: operations.finish(c, op, OperationState.FAILED, error=error))
    assert record(cloud, "h1").error == error.to_dict()
    with pytest.raises(NotFound):
        cloud.submit(Verb.RETIRE, {"hosts": ["h9"]})


def test_copies_go_to_hosts_that_run_that_kind(cloud: Rig) -> None:
    cloud.host("lxd", kinds=["container"])

    def targets(kind: str, *names: str) -> list[str]:
        return [h.name for h, _ in cloud.run(lambda c: hosts.targets(c, kind, names))]

    assert targets("vm") == ["h1", "h2"]
    assert targets("container") == ["h1", "h2", "lxd"]
    put(cloud, "h2", HostState.DISABLED)
    assert targets("vm") == ["h1"]
    assert targets("vm", "h2") == ["h2"]
