"""Blueprints against the record: what is made, changed, left, reported; counts that shrink."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from blueprints.blueprint import parse
from control import blueprints, hosts, images, instances, tables
from control.blueprints import Plan
from core.errors import Conflict, Denied, NotFound
from core.states import InstanceState, OperationState, Verb
from tests.rig import LAN, Rig


def apply(cloud: Rig, text: dict[str, Any], **how: Any) -> Plan:
    by = how.pop("by", cloud.admin)
    return cloud.run(lambda c: blueprints.apply(c, by, parse(text), **how))


def run_all(cloud: Rig) -> None:
    """Take every deploy that is due through to running."""
    ops = [op for op in cloud.claim() if op.verb is Verb.DEPLOY]
    cloud.place(ops)
    cloud.end(ops, InstanceState.RUNNING)


def web(count: int = 3, **more: Any) -> dict[str, Any]:
    return {"instances": [{"name": "web", "image": "tiny", "memory": 128, "count": count, **more}]}


def test_applying_again_changes_nothing(cloud: Rig) -> None:
    text = {"networks": [LAN], **web()}
    first = apply(cloud, text)
    assert (first.networks.unchanged, first.instances.create) == (["lan"], ["web-1", "web-2", "web-3"])
    run_all(cloud)
    again = apply(cloud, text)
    assert (again.instances.unchanged, again.operations) == (["web-1", "web-2", "web-3"], [])


def test_a_higher_count_adds_and_a_lower_one_needs_prune(cloud: Rig) -> None:
    apply(cloud, web(3))
    run_all(cloud)
    cloud.deploy("web-9", memory=128)  # by hand: not one of the three
    grown = apply(cloud, web(5))
    assert grown.instances.create == ["web-4", "web-5"]
    run_all(cloud)
    kept = apply(cloud, web(2))
    assert (kept.surplus, kept.instances.delete, kept.operations) == (["web-3", "web-4", "web-5"], [], [])
    dry = apply(cloud, web(2), prune=True, dry_run=True)
    assert (dry.instances.delete, dry.surplus) == (["web-3", "web-4", "web-5"], [])
    pruned = apply(cloud, web(2), prune=True)
    assert [(op["verb"], op["name"]) for op in pruned.operations] == [
        ("delete", name) for name in ("web-3", "web-4", "web-5")
    ]


def test_labels_change_in_place_and_the_rest_is_reported(cloud: Rig) -> None:
    apply(cloud, web(1))
    run_all(cloud)
    changed = apply(cloud, web(1, labels={"tier": "front"}))
    assert changed.instances.update == [{"name": "web-1", "fields": ["labels"]}]
    assert cloud.show("web-1")["labels"] == {"tier": "front"}
    assert apply(cloud, web(1, labels={"tier": "front"})).instances.unchanged == ["web-1"]
    larger = apply(cloud, web(1, labels={"tier": "front"}, cpu=2))
    assert larger.instances.differs == [
        {"name": "web-1", "fields": ["cpu"], "needs": "to be deleted and made again"}
    ]
    assert larger.operations == []


def test_what_a_spec_leaves_open_does_not_count_as_different(cloud: Rig) -> None:
    text = {"instances": [{"name": "a", "image": "tiny", "disks": [{"name": "d", "size": 5, "datastore": "local"}]}]}
    apply(cloud, text)
    assert apply(cloud, text).instances.unchanged == ["a"]


def test_a_failed_instance_is_reported(cloud: Rig) -> None:
    apply(cloud, web(1))
    cloud.end(cloud.claim(), InstanceState.FAILED, OperationState.COMPENSATED)
    (found,) = apply(cloud, web(1)).instances.differs
    assert found["fields"] == ["state"]


def test_images_change_in_place_but_for_their_content(cloud: Rig) -> None:
    spec = {"name": "tiny", "source": "/tiny.qcow2"}
    assert apply(cloud, {"images": [spec]}).images.unchanged == ["tiny"]
    changed = apply(cloud, {"images": [{**spec, "min_memory": 256, "labels": {"a": "b"}}]})
    assert changed.images.update == [{"name": "tiny", "fields": ["min_memory_mib", "labels"]}]
    image = cloud.run(lambda c: images.get(c, "tiny"))
    assert (image.min_memory_mib, image.labels, image.state) == (256, {"a": "b"}, "ready")
    other = apply(cloud, {"images": [{**spec, "source": "/else.qcow2"}]})
    assert (other.images.differs[0]["fields"], other.operations) == (["source"], [])


def test_hosts_take_over_what_needs_no_look_and_are_enrolled_anew_for_the_rest(cloud: Rig) -> None:
    h1 = {"name": "h1", "address": cloud.run(lambda c: hosts.get(c, "h1")).address}
    assert apply(cloud, {"hosts": [h1]}).hosts.unchanged == ["h1"]
    small = apply(cloud, {"hosts": [{**h1, "cpus": 2, "memory": "1GiB", "labels": {"a": "b"}}]})
    assert (small.hosts.update[0]["name"], small.operations) == ("h1", [])
    found = cloud.run(lambda c: hosts.get(c, "h1"))
    assert (found.cpus, found.memory_mib, found.labels, found.state) == (2, 1024, {"a": "b"}, "ready")
    apply(cloud, {"hosts": [h1]})
    assert cloud.run(lambda c: hosts.get(c, "h1")).cpus == 4, "what was found counts again"
    moved = apply(cloud, {"hosts": [{**h1, "user": "ops"}]})
    assert [(op["verb"], op["name"]) for op in moved.operations] == [("enroll", "h1")]


def test_a_plan_says_where_instances_would_go_and_writes_nothing(cloud: Rig) -> None:
    text = {"images": [{"name": "new", "source": "/n"}], **web(2)}
    plan = apply(cloud, text, dry_run=True)
    assert plan.images.create == ["new"]
    assert [(one["name"], one["host"]) for one in plan.placements] == [("web-1", "h1"), ("web-2", "h1")]
    assert cloud.claim() == []
    assert cloud.run(lambda c: instances.list_(c, cloud.admin)) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ({"instances": [{"name": "a", "image": "none"}]}, "no image none"),
        ({"instances": [{"name": "a", "image": "tiny", "nics": [{"network": "none"}]}]}, "no network none"),
        ({"hosts": [{"name": "x", "address": "10.8.8.8", "cluster": "none"}]}, "no cluster none"),
    ],
)
def test_what_is_referred_to_must_be_in_record_or_file(cloud: Rig, text: dict[str, Any], words: str) -> None:
    for dry_run in (True, False):
        with pytest.raises(NotFound, match=words):
            apply(cloud, text, dry_run=dry_run)


def test_all_of_it_or_nothing(cloud: Rig) -> None:
    text = {"networks": [{"name": "back", "bridge": "br9", "addressing": "dhcp"}], **web(1, image="none")}
    with pytest.raises(NotFound):
        apply(cloud, text)
    assert apply(cloud, {"networks": text["networks"]}, dry_run=True).networks.create == ["back"]


def test_users_apply_instances_of_their_own(cloud: Rig) -> None:
    eve, bob = cloud.user("eve"), cloud.user("bob")
    assert apply(cloud, {"networks": [LAN], **web(1)}, by=eve).instances.create == ["web-1"]
    with pytest.raises(Conflict, match="belongs to somebody else"):
        apply(cloud, web(1), by=bob)
    with pytest.raises(Denied):
        apply(cloud, {"networks": [{"name": "back", "bridge": "br9", "addressing": "dhcp"}]}, by=bob)
    with pytest.raises(Denied):
        apply(cloud, {"hosts": [{"name": "x", "address": "10.8.8.8"}]}, by=bob)


def test_new_datastores_have_hosts_looked_at(cloud: Rig) -> None:
    done = apply(cloud, {"datastores": [{"name": "fast", "path": "/fast"}]})
    assert [(op["verb"], op["name"]) for op in done.operations] == [("reconcile", "reconcile")]


def test_what_was_recorded_before_there_was_a_field_does_not_differ_by_it(cloud: Rig) -> None:
    blueprint = {"instances": [{"name": "a", "image": "tiny", "memory": "256MiB", "cpu": 1}]}
    cloud.deploy("a")
    t = tables.instance
    spec = cloud.run(lambda c: c.execute(sa.select(t.c.spec)).scalar_one())
    old = {key: value for key, value in spec.items() if key not in ("pci", "numa", "gang", "priority")}
    old["requirements"] = {key: value for key, value in old["requirements"].items() if key != "capabilities"}
    cloud.run(lambda c: c.execute(sa.update(t).values(spec=old)))
    plan = apply(cloud, blueprint, dry_run=True)
    assert (plan.instances.unchanged, plan.instances.differs) == (["a"], [])
