"""Where instances go, why, and what is said when they go nowhere."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from blueprints.cluster import ClusterSpec
from blueprints.datastore import DatastoreSpec
from blueprints.instance import InstanceSpec
from control import (
    clusters,
    datastores,
    decisions,
    hosts,
    images,
    instances,
    leases,
    operations,
    placing,
    placing_preview,
)
from core.errors import Invalid, NoCapacityNow, NoFit, NotFound, RackflowError
from core.ids import mac_address
from core.states import CopyState, HostState, InstanceState, OperationState, Verb
from tests.rig import SHA, Rig


def try_to_place(cloud: Rig, name: str = "web", features: dict[str, Any] | None = None, **spec: Any) -> placing.Outcome:
    """Ask for one instance and place it."""
    cloud.ask(name, **spec)
    ops = [op for op in cloud.claim() if op.subject_name == name]
    return cloud.place(ops, features)[0]


def refusal(cloud: Rig, **spec: Any) -> RackflowError:
    error = try_to_place(cloud, **spec).error
    assert error is not None
    return error


def put(cloud: Rig, name: str, state: HostState) -> None:
    cloud.run(lambda c: hosts.set_state(c, hosts.get(c, name).id, state))


def decision(cloud: Rig, name: str) -> dict[str, Any]:
    return cloud.run(lambda c: decisions.newest(c, cloud.run(lambda _: cloud.show(name)["id"])))


def test_tight_hosts_fill_first_and_an_empty_one_is_opened_last(cloud: Rig) -> None:
    assert [try_to_place(cloud, f"i-{n}", memory=1024).host for n in range(5)] == ["h1"] * 4 + ["h2"]


def test_shapes_that_complement_each_other_meet(cloud: Rig) -> None:
    try_to_place(cloud, "wide", cpu=4, memory=256, requirements={"host": "h1"})
    try_to_place(cloud, "tall", cpu=0.5, memory=3000, requirements={"host": "h2"})
    assert try_to_place(cloud, "cores", cpu=4, memory=128).host == "h2"


def test_a_host_with_the_image_is_preferred(cloud: Rig) -> None:
    for name in ("h1", "h2"):
        try_to_place(cloud, f"on-{name}", requirements={"host": name})
    store = cloud.run(lambda c: datastores.by_name(c, ["local"]))["local"].id
    h2 = cloud.run(lambda c: hosts.get(c, "h2"))
    cloud.run(lambda c: images.record_copy(c, SHA, h2.id, store, CopyState.READY, 1))
    assert try_to_place(cloud, "web").host == "h2"


def test_measured_memory_shuts_a_host_and_measured_load_is_avoided(cloud: Rig) -> None:
    full = {"version": 7, "hosts": {"h1": {"memory_used_mib": 4000, "cpu_used_ratio": 0.1, "samples": 10}}}
    assert try_to_place(cloud, "a", full).host == "h2"
    assert decision(cloud, "a")["features_version"] == 7
    (shut,) = [entry for entry in decision(cloud, "a")["hosts"] if entry["host"] == "h1"]
    assert (shut["constraint"], shut["free"], shut["limit"]) == ("measured-memory", 96, 4096)
    hot = {"version": 8, "hosts": {"h2": {"memory_used_mib": 100, "cpu_used_ratio": 0.95, "samples": 10}}}
    assert try_to_place(cloud, "b", hot).host == "h1", "although h2 is the tight one"
    few = {"version": 9, "hosts": {"h1": {"memory_used_mib": 4000, "cpu_used_ratio": 1.0, "samples": 1}}}
    assert try_to_place(cloud, "c", few).host == "h1", "one sample says little"


def test_what_could_never_fit_fails_and_says_what_would(cloud: Rig) -> None:
    error = refusal(cloud, memory=8192)
    assert isinstance(error, NoFit)
    assert error.message == (
        "no host of this cloud can hold web: memory on h1, h2 "
        "(needs 8192 MiB of memory, 4096 of 4096 are free; best is h1)"
    )
    assert error.fix == "4096 instead of 8192 MiB of memory would fit on h1"
    assert [entry["constraint"] for entry in error.evidence["hosts"]] == ["memory", "memory"]


@pytest.mark.parametrize(
    ("spec", "constraint", "fix"),
    [
        ({"cpu": 6}, "cpu", "4 instead of 6 cores would fit on h1"),
        ({"disk": 200_000}, "disk", "99990 instead of 200000 MiB of disk would fit on h1"),
        (
            {"requirements": {"host_labels": {"disk": "ssd"}}}, "labels",
            "without requiring labels disk=ssd, it would fit on h1",
        ),
        (
            {"cpu": 5, "memory": 5000}, "cpu",
            "4 instead of 5 cores and 4096 instead of 5000 MiB of memory would fit on h1",
        ),
    ],
)  # fmt: skip
def test_the_constraint_and_the_smallest_change_are_told(
    cloud: Rig, spec: dict[str, Any], constraint: str, fix: str
) -> None:
    error = refusal(cloud, **spec)
    assert isinstance(error, NoFit)
    assert {entry["constraint"] for entry in error.evidence["hosts"]} == {constraint}
    assert error.fix == fix


def test_a_host_that_is_off_for_now_is_worth_waiting_for(cloud: Rig) -> None:
    put(cloud, "h1", HostState.UNREACHABLE)
    put(cloud, "h2", HostState.DISABLED)
    error = refusal(cloud, name="a")
    assert isinstance(error, NoCapacityNow)
    assert "state on h1, h2" in error.message
    put(cloud, "h1", HostState.DISABLED)
    error = refusal(cloud, name="b")
    assert isinstance(error, NoFit)
    assert error.fix == "with host h1 ready instead of disabled, it would fit on h1"


def test_a_host_that_is_being_enrolled_is_worth_waiting_for(rig: Rig) -> None:
    rig.network()
    rig.image()
    assert isinstance(refusal(rig, name="a"), NoFit), "a cloud without hosts"
    rig.submit(Verb.ENROLL, {"hosts": [{"name": "h1", "address": "10.2.2.2"}]})
    (enroll,) = rig.claim()
    assert isinstance(refusal(rig, name="b"), NoCapacityNow)
    assert isinstance(refusal(rig, name="c", requirements={"host_labels": {"x": "y"}}), NoFit)
    rig.run(lambda c: operations.finish(c, enroll, OperationState.FAILED))
    assert isinstance(refusal(rig, name="d"), NoFit)


def test_a_datastore_that_no_look_has_seen_yet_is_worth_waiting_for(cloud: Rig) -> None:
    spec = DatastoreSpec(name="fast", path="/fast")
    cloud.run(lambda c: datastores.ensure(c, cloud.admin, spec))
    assert isinstance(refusal(cloud, requirements={"datastore": "fast"}), NoCapacityNow)


def test_used_up_addresses_are_waited_for(rig: Rig) -> None:
    rig.network(ranges=[{"first": "10.9.0.10", "last": "10.9.0.11"}])
    rig.image()
    rig.host("h1")
    outcomes = rig.place(rig.claim() if rig.ask("a", "b", "c") else [])
    assert [one.host for one in outcomes] == ["h1", "h1", None]
    error = outcomes[2].error
    assert isinstance(error, NoCapacityNow)
    assert "network lan has 0 of 2 addresses free, 1 needed" in error.message
    assert isinstance(refusal(rig, name="d", nics=[{"network": "lan"}] * 3), NoFit), "three at once never fit"


def test_networks_reach_decides(cloud: Rig) -> None:
    cloud.host("h3", bridges={"br0": "", "br7": ""})
    cloud.network(name="back", bridge="br7", addressing="dhcp", subnet=None, gateway=None, ranges=[], default_for=[])
    assert try_to_place(cloud, "a", nics=[{"network": "lan"}, {"network": "back"}]).host == "h3"
    shown = cloud.show("a")
    assert [(nic["network"], nic["address"]) for nic in shown["nics"]] == [("lan", "10.9.0.10"), ("back", None)]


def test_overcommit_is_the_hosts_or_its_clusters(rig: Rig) -> None:
    rig.network()
    rig.image()
    rig.run(lambda c: clusters.ensure(c, rig.admin, ClusterSpec(name="dense", cpu_overcommit=2, memory_overcommit=1.5)))
    rig.host("own", cluster="dense", cpus=2, memory_mib=1024, cpu_overcommit=1, memory_overcommit=1)
    rig.host("dense", cluster="dense", cpus=2, memory_mib=1024)
    counts: dict[str, int] = {}
    rig.ask(*(f"i-{n}" for n in range(20)), cpu=1, memory=256)
    for outcome in rig.place(rig.claim()):
        counts[str(outcome.host)] = counts.get(str(outcome.host), 0) + 1
    assert counts == {"own": 2, "dense": 4, "None": 14}


def test_a_cluster_has_its_own_policy_from_the_next_placement_on(cloud: Rig) -> None:
    def name_policy(policy: str | None) -> bool:
        spec = ClusterSpec(name="edge", placement_policy=policy)
        return cloud.run(lambda c: clusters.ensure(c, cloud.admin, spec))[1]

    def hosts_of(prefix: str) -> list[str | None]:
        cloud.ask(*(f"{prefix}-{n}" for n in range(4)), requirements={"cluster": "edge"})
        return sorted(outcome.host or "" for outcome in cloud.place(cloud.claim()))

    name_policy(None)
    cloud.host("e1", cluster="edge")
    cloud.host("e2", cluster="edge")
    assert hosts_of("a") == ["e1"] * 4
    assert "policy" not in decision(cloud, "a-0"), "no cluster names one"
    assert name_policy("striping")
    assert not name_policy("striping")
    assert hosts_of("b") == ["e1", "e1", "e2", "e2"]
    assert decision(cloud, "b-0")["policy"] == "striping"
    told = decision_of(cloud, "anywhere")
    assert (told["policy"], told["host"]) == ("striping", "e2"), "of the better cluster's hosts the one with fewest"
    assert told["across"]["policy"] == "balanced"
    assert [one["cluster"] for one in told["across"]["clusters"]] == ["edge", "default"]
    assert name_policy(None)
    assert "policy" not in decision_of(cloud, "later")


def decision_of(cloud: Rig, name: str) -> dict[str, Any]:
    try_to_place(cloud, name)
    return decision(cloud, name)


def test_a_policy_that_is_not_there_is_refused(cloud: Rig) -> None:
    spec = ClusterSpec(name="edge", placement_policy="sprawl")
    with pytest.raises(Invalid) as caught:
        cloud.run(lambda c: clusters.ensure(c, cloud.admin, spec))
    assert "balanced" in caught.value.fix


def test_an_instance_that_is_placed_stays_there(cloud: Rig) -> None:
    cloud.ask("web")
    ops = cloud.claim()
    first = cloud.place(ops)
    put(cloud, "h1", HostState.DISABLED)
    assert cloud.place(ops) == first
    assert len(cloud.show("web")["nics"]) == 1


def test_hosts_where_it_failed_are_avoided_and_then_named(cloud: Rig) -> None:
    cloud.ask("web")
    (op,) = cloud.claim()
    tried = {"avoid": ["h1"], "avoid_error": {"message": "disk broke"}}
    cloud.run(lambda c: operations.set_parameters(c, op, tried))
    assert cloud.place([cloud.get(op)])[0].host == "h2"
    cloud.ask("db")
    (op,) = cloud.claim()
    cloud.run(lambda c: operations.set_parameters(c, op, {**tried, "avoid": ["h1", "h2"]}))
    error = cloud.place([cloud.get(op)])[0].error
    assert isinstance(error, NoFit)
    assert error.message == "no host is left for db: on h1, h2: disk broke"


def test_a_disk_that_turns_out_too_small_is_told(cloud: Rig) -> None:
    cloud.submit(Verb.IMPORT, {"images": [{"name": "late", "source": "/late"}]})
    cloud.ask("web", image="late", disk=32)
    (imported,) = cloud.claim()

    def end(c: Any) -> None:
        images.record_imported(
            c, imported, imported.subject_id, sha256=SHA, format="raw", size_bytes=1, virtual_size_mib=64
        )
        operations.finish(c, imported, OperationState.DONE)

    cloud.run(end)
    (outcome,) = cloud.place(cloud.claim())
    assert isinstance(outcome.error, Invalid)
    assert "too small" in outcome.error.message


def test_of_a_deleted_instance_nothing_is_placed(cloud: Rig) -> None:
    cloud.ask("web")
    (op,) = cloud.claim()
    cloud.run(lambda c: instances.mark_deleted(c, op, op.subject_id))
    (outcome,) = cloud.place([op])
    assert outcome.error is not None
    assert "is deleted" in outcome.error.message


def test_decisions_of_a_batch_share_one_record(cloud: Rig) -> None:
    cloud.ask("a", "b", "c")
    cloud.place(cloud.claim())
    a, c = decision(cloud, "a"), decision(cloud, "c")
    assert (a["position"], c["position"]) == (0, 2)
    assert a["hosts"] == c["hosts"]
    assert [(entry["host"], entry["rank"], entry["fits"]) for entry in a["hosts"]] == [("h1", 0, 16), ("h2", 1, 16)]
    assert set(a["hosts"][0]["parts"]) == {"balance", "left", "crowd", "empty", "image"}, "nothing is measured"
    cloud.ask("d")
    with pytest.raises(NotFound, match="nothing was decided yet"):
        decision(cloud, "d")


def test_two_nics_of_one_mac_get_two(cloud: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 bits of hash collide sooner or later."""
    monkeypatch.setattr(leases, "mac_address", lambda instance, index: mac_address("same", index // 1000))
    cloud.deploy("a", "b", nics=[{"network": "lan"}, {"network": "lan"}])
    cloud.deploy("c")
    macs = [nic["mac"] for name in "abc" for nic in cloud.show(name)["nics"]]
    assert len(set(macs)) == 5


def test_fixed_addresses_are_given_before_others_take_them(cloud: Rig) -> None:
    cloud.ask("a", "b")
    cloud.ask("c", nics=[{"network": "lan", "address": "10.9.0.10"}])
    assert [one.error for one in cloud.place(cloud.claim())] == [None] * 3
    assert [cloud.show(name)["addresses"][0][-2:] for name in "abc"] == ["11", "12", "10"]


def test_a_plan_notes_what_is_not_there_yet(cloud: Rig) -> None:
    specs = [
        InstanceSpec.model_validate({"name": "web", "image": "new", "kind": "vm", "nics": [{"network": "none"}]}),
        InstanceSpec.model_validate({"name": "big", "image": "tiny", "memory": "1TiB"}),
    ]
    web, big = cloud.run(lambda c: placing_preview.plan(c, cloud.admin, specs))
    assert (web["host"], web["notes"]) == ("h1", ["image new is not there yet", "network none is not there yet"])
    assert (big["host"], big["error"]["code"]) == (None, "no-fit")


def test_a_thousand_on_a_hundred_hosts_take_few_statements(rig: Rig) -> None:
    rig.network(subnet="10.9.0.0/16", gateway=None, ranges=[{"first": "10.9.1.0", "last": "10.9.250.0"}])
    rig.image()
    for n in range(20):
        rig.host(f"h{n}", cpus=64, memory_mib=16384)
    rig.ask(*(f"i-{n}" for n in range(1000)), cpu=0.5, memory=256)
    ops = rig.claim()
    statements: list[str] = []

    def place(c: sa.Connection) -> list[placing.Outcome]:
        sa.event.listen(c, "before_cursor_execute", lambda *args: statements.append(args[2]))
        return placing.place(c, ops, {})

    outcomes = rig.run(place)
    assert sum(one.error is None for one in outcomes) == 1000
    assert len({one.host for one in outcomes}) == 16
    assert len(statements) < 40
    rig.end(ops, InstanceState.RUNNING)


def test_who_holds_less_comes_first_when_there_is_not_room_for_all(rig: Rig) -> None:
    rig.network()
    rig.image()
    rig.host("h1", cpus=4, memory_mib=65536, cpu_overcommit=1)
    rig.deploy("held-1", "held-2")
    rig.ask("mine-1", "mine-2")
    rig.ask("theirs-1", "theirs-2", by=rig.user("prefect"))
    placed = [one.instance_id for one in rig.place(rig.claim()) if one.host]
    assert sorted(placed) == sorted(rig.show(name)["id"] for name in ("theirs-1", "theirs-2"))
