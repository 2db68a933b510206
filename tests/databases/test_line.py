"""The whole line of the record on every database: enroll, import, deploy, look, delete, retire; and every view."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from blueprints.blueprint import parse
from blueprints.instance import InstanceSpec
from control import (
    access,
    blueprints,
    clusters,
    datastores,
    decisions,
    drift,
    hosts,
    images,
    instances,
    networks,
    operations,
    outbox,
    overview,
    placing_preview,
    quotas,
    reconcile,
    requests,
    tables,
)  # fmt: skip
from core.clock import now
from core.errors import NoCapacityNow
from core.ids import on_host
from core.states import CopyState, HostState, InstanceState, OperationState, PowerState, Verb
from tests.rig import SHA, Rig


@pytest.fixture
def cloud(rig: Rig) -> Rig:
    rig.network()
    rig.image()
    rig.host("h1")
    rig.host("h2", labels={"disk": "ssd"})
    return rig


def read(cloud: Rig, look: Any, *args: Any, **named: Any) -> Any:
    return cloud.run(lambda c: look(c, cloud.admin, *args, **named))


def test_instances_come_and_go(cloud: Rig) -> None:
    (one,) = cloud.deploy("web", labels={"tier": "front"}, requirements={"host_labels": {"disk": "ssd"}})
    view = cloud.run(lambda c: instances.deployables(c, [one]))[one]
    assert view.host is not None
    assert view.datastore is not None
    assert (view.host.name, view.datastore.path, view.image.sha256, view.root_mib) == ("h2", "/srv/rackflow", SHA, 0)
    (lease,) = view.leases
    assert (lease.network, lease.bridge, lease.cidr, lease.address) == ("lan", "br0", "10.9.0.1/24", "10.9.0.10")
    assert (lease.prefix_length, lease.gateway) == (24, "10.9.0.254")
    shown = cloud.show("web")
    assert (shown["state"], shown["host"], shown["addresses"], shown["operation"]) == (
        "running", "h2", ["10.9.0.10"], None,
    )  # fmt: skip
    assert [i["name"] for i in read(cloud, instances.list_, host="h2", labels={"tier": "front"})] == ["web"]
    assert read(cloud, instances.list_, state="off") == []
    cloud.delete("web")
    assert read(cloud, instances.list_) == []
    assert cloud.show(one)["state"] == InstanceState.DELETED
    t = tables.lease
    assert cloud.run(lambda c: list(c.execute(sa.select(t.c.id)))) == []
    states = [(e["from"], e["to"], e["host"]) for e in cloud.events("lifecycle")]
    # It was released before it was marked as deleted, so the last event names no host.
    assert states == [(None, "pending", None), ("pending", "running", "h2"), ("running", "deleted", None)]


def test_every_view_answers(cloud: Rig) -> None:
    cloud.deploy("web", "db")
    (name,) = {cloud.show("web")["host"]}
    host = read(cloud, hosts.show, name)
    assert (host["instances"], host["cpu_reserved"], host["memory_reserved_mib"]) == (2, 2, 512)
    assert [d["free_mib"] for d in host["datastores"]] == [100_000]
    assert [n["name"] for n in host["networks"]] == ["lan"]
    assert [h["name"] for h in read(cloud, hosts.list_, labels={"disk": "ssd"})] == ["h2"]
    store = read(cloud, datastores.show, "local")
    record = cloud.run(lambda c: hosts.get(c, name))
    cloud.run(lambda c: images.record_copy(c, SHA, record.id, store["id"], CopyState.READY, 5))
    cloud.run(lambda c: images.record_copy(c, SHA, record.id, store["id"], CopyState.COPYING, 1))
    image = read(cloud, images.show, "tiny")
    assert [(copy["host"], copy["state"], copy["bytes_done"]) for copy in image["copies"]] == [(name, "ready", 5)]
    owed = cloud.run(lambda c: images.copies_to_remove(c, images.get(c, "tiny")))
    assert [(r.id, path) for r, path in owed] == [(record.id, "/srv/rackflow")]
    assert [h["host"] for h in store["hosts"]] == ["h1", "h2"]
    net = read(cloud, networks.show, "lan")
    assert (net["leased"], net["free"], [x["instance"] for x in net["leases"]]) == (2, 239, ["db", "web"])
    assert [(one["name"], one["hosts"]) for one in read(cloud, clusters.list_)] == [("default", 2)]
    decision = cloud.run(lambda c: decisions.newest(c, instances.id_of(c, cloud.admin, "db")))
    assert (decision["host"], decision["position"]) == (name, 1)
    assert {entry["host"] for entry in decision["hosts"]} == {"h1", "h2"}
    deploys = read(cloud, operations.list_, verb="deploy", steps=True, newest_first=True)
    assert [op["name"] for op in deploys] == ["db", "web"]
    asked = read(cloud, requests.list_)
    assert asked[0]["operations"] == 2
    assert len(read(cloud, requests.show, asked[0]["id"])["operations"]) == 2
    assert cloud.run(overview.counts)["instances"] == {"running": 2}
    assert read(cloud, quotas.show)["used"] == {"instances": 2, "cpu": 2, "memory_mib": 512}
    assert read(cloud, drift.list_) == []


def test_pages_follow_each_other(cloud: Rig) -> None:
    cloud.ask(*(f"i-{n}" for n in range(7)))
    first = read(cloud, instances.list_, limit=4)
    rest = read(cloud, instances.list_, limit=4, after=first[-1]["id"])
    assert [i["name"] for i in first + rest] == [f"i-{n}" for n in range(7)]
    newest = read(cloud, operations.list_, verb="deploy", limit=3, newest_first=True)
    older = read(cloud, operations.list_, verb="deploy", limit=9, newest_first=True, after=newest[-1]["id"])
    assert [op["name"] for op in newest + older] == [f"i-{n}" for n in range(6, -1, -1)]


def test_a_full_cloud_makes_deploys_wait_and_room_wakes_them(cloud: Rig) -> None:
    cloud.deploy("a", "b", memory=4096)
    (op,) = cloud.ask("c", memory=4096)
    (claimed,) = cloud.claim()
    (outcome,) = cloud.place([claimed])
    assert isinstance(outcome.error, NoCapacityNow)
    error = outcome.error
    cloud.run(lambda c: operations.postpone(c, claimed, str(error), now().replace(year=2999)))
    assert cloud.claim() == []
    cloud.delete("a")
    (again,) = cloud.claim()
    assert again.id == op.id
    (outcome,) = cloud.place([again])
    assert outcome.error is None


def test_drift_is_found_and_closed(cloud: Rig) -> None:
    ids = cloud.deploy("a", "b", requirements={"host": "h1"})
    record = cloud.run(lambda c: hosts.get(c, "h1"))

    def look(powers: list[tuple[str, PowerState]]) -> list[reconcile.Finding]:
        expected = cloud.run(lambda c: reconcile.expected_on(c, [record.id])[record.id])
        findings = reconcile.compare(expected, powers)
        return cloud.run(lambda c: reconcile.record_findings(c, record.id, "h1", findings))

    healthy = [(on_host(one), PowerState.RUNNING) for one in ids]
    assert look(healthy) == []
    (dead,) = look([healthy[0], (on_host(ids[1]), PowerState.CRASHED)])
    assert (dead.kind, dead.policy, dead.verb, dead.name) == ("stopped", "repair", Verb.START, "b")
    assert cloud.show("b")["state"] == "off"
    assert [(d["name"], d["kind"]) for d in read(cloud, drift.list_)] == [("b", "stopped")]
    cloud.submit(Verb.START, {"instances": ["b"]})
    cloud.end(cloud.claim(), InstanceState.RUNNING)
    assert look(healthy) == []
    assert read(cloud, drift.list_) == []
    cloud.delete("a")
    (left,) = look(healthy)
    assert (left.kind, left.policy) == ("residue", "repair")
    (owed,) = cloud.run(lambda c: drift.residues(c, "h1"))
    assert owed.instance_id == ids[0]
    cloud.run(lambda c: drift.close(c, owed.id, "repaired"))
    assert cloud.run(lambda c: drift.residues(c, "h1")) == []


def test_hosts_and_images_are_taken_out(cloud: Rig) -> None:
    cloud.deploy("a", requirements={"host": "h1"})
    cloud.submit(Verb.RETIRE, {"hosts": ["h1"], "force": True})
    (op,) = cloud.claim()
    cloud.run(lambda c: hosts.set_state(c, op.subject_id, HostState.RETIRED))
    cloud.run(lambda c: operations.finish(c, op, OperationState.DONE))
    assert [h["name"] for h in read(cloud, hosts.list_)] == ["h2"]
    shown = cloud.show("a")
    assert (shown["state"], shown["host"], shown["addresses"]) == ("failed", None, [])
    cloud.delete("a")
    cloud.submit(Verb.REMOVE, {"images": ["tiny"]})
    (op,) = cloud.claim()
    cloud.run(lambda c: images.mark_deleted(c, op, op.subject_id))
    cloud.run(lambda c: operations.finish(c, op, OperationState.DONE))
    assert read(cloud, images.list_) == []
    cloud.host("h1")
    cloud.image()


def test_a_blueprint_is_applied_and_applied_again(cloud: Rig) -> None:
    text = {
        "clusters": [{"name": "edge", "cpu_overcommit": 2}],
        "datastores": [{"name": "fast", "path": "/fast"}],
        "networks": [{"name": "back", "bridge": "br9", "addressing": "dhcp"}],
        "images": [{"name": "new", "source": "/new.qcow2"}],
        "hosts": [{"name": "h3", "address": "10.3.3.3", "cluster": "edge"}],
        "instances": [{"name": "web", "image": "new", "count": 2}],
    }
    want = parse(text)
    dry = cloud.run(lambda c: blueprints.apply(c, cloud.admin, want, dry_run=True))
    assert dry.instances.create == ["web-1", "web-2"]
    assert dry.operations == []
    done = cloud.run(lambda c: blueprints.apply(c, cloud.admin, want, key="k"))
    assert [(op["verb"], op["name"]) for op in done.operations] == [
        ("import", "new"), ("enroll", "h3"), ("deploy", "web-1"), ("deploy", "web-2"), ("reconcile", "reconcile"),
    ]  # fmt: skip
    again = cloud.run(lambda c: blueprints.apply(c, cloud.admin, want, key="k"))
    assert again.instances.unchanged == ["web-1", "web-2"]
    assert again.networks.unchanged == ["back"]
    assert [op["id"] for op in again.operations] == [op["id"] for op in done.operations]


def test_events_are_moved_once_and_purged(cloud: Rig) -> None:
    rows = cloud.run(lambda c: outbox.unmoved(c, 3))
    assert [sorted(row) for row in rows] == [["at", "id", "kind", "payload", "subject"]] * 3
    cloud.run(lambda c: outbox.mark_moved(c, [row["id"] for row in rows]))
    following = cloud.run(lambda c: outbox.unmoved(c, 1000))
    assert not {row["id"] for row in rows} & {row["id"] for row in following}
    assert cloud.run(lambda c: outbox.purge(c, now())) == 3


def test_tokens_open_the_door_until_they_expire(cloud: Rig) -> None:
    token = cloud.run(access.ensure_admin)
    assert token is not None
    assert cloud.run(access.ensure_admin) is None
    assert cloud.run(lambda c: access.authenticate(c, token)) == cloud.admin
    old = cloud.run(lambda c: access.new_token(c, cloud.admin, "old", expires_at=now().replace(year=2000)))
    for wrong in (old, token + "x"):
        with pytest.raises(Exception, match="token"):
            cloud.run(lambda c, w=wrong: access.authenticate(c, w))  # type: ignore[misc]


def test_a_plan_says_where_and_changes_nothing(cloud: Rig) -> None:
    spec = InstanceSpec(name="web", image="tiny", memory_mib=512, count=2)
    planned = read(cloud, placing_preview.plan, [spec])
    assert [(p["name"], p["host"], p["error"]) for p in planned] == [("web-1", "h1", None), ("web-2", "h1", None)]
    assert read(cloud, instances.list_) == []


def test_rules_between_instances(cloud: Rig) -> None:
    cloud.run(lambda c: c.execute(sa.update(tables.host).values(facts={"architecture": "x86_64", "memory_mib": 4096})))
    apart = {"labels": {"role": "web"}, "anti_affinity": [{"labels": {"role": "web"}}]}
    cloud.deploy("web-1", **apart)
    cloud.deploy("web-2", **apart)
    assert {cloud.show(name)["host"] for name in ("web-1", "web-2")} == {"h1", "h2"}
    cloud.ask("web-3", requirements={"architecture": "x86_64", "where": "cpus > 0"}, **apart)
    (outcome,) = cloud.place(cloud.claim())
    assert isinstance(outcome.error, NoCapacityNow)
    assert "1 with role=web on its host" in outcome.error.message
