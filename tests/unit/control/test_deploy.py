"""What a request to deploy must satisfy, and what it leaves in the record."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from control import quotas, requests
from core.errors import Conflict, Denied, Invalid, NotFound, RackflowError, Unsupported
from core.states import OperationState, Verb
from tests.rig import Rig


def ask(cloud: Rig, **spec: Any) -> None:
    cloud.ask(spec.pop("name", "web"), **spec)


def both(*specs: dict[str, Any]) -> dict[str, Any]:
    """Return the body for these specs."""
    return {"instances": [{"image": "tiny", **spec} for spec in specs]}


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ({"colour": "red"}, Invalid, "instances.0.colour: is not a known field"),
        ({"memory": -1}, Invalid, "memory"),
        ({"memory": "lots"}, Invalid, "not a size"),
        ({"name": "Web_1"}, Invalid, "name"),
        ({"image": "none"}, NotFound, "there is no image none"),
        ({"kind": "container"}, Invalid, "is a container, but image tiny is for a vm"),
        ({"disk": 10}, Invalid, "at least 64 MiB"),
        ({"nics": [{"network": "none"}]}, NotFound, "there is no network none"),
        ({"requirements": {"host": "h9"}}, NotFound, "there is no host h9"),
        ({"requirements": {"cluster": "c9"}}, NotFound, "there is no cluster c9"),
        ({"requirements": {"datastore": "d9"}}, NotFound, "there is no datastore d9"),
        ({"disks": [{"name": "a", "size": 1, "datastore": "d9"}]}, NotFound, "there is no datastore d9"),
        ({"nics": [{"network": "lan", "address": "10.9.0.9"}]}, Invalid, "has no address 10.9.0.9 to give"),
        ({"nics": [{"network": "lan", "address": "nonsense"}]}, Invalid, "must be an IPv4 address"),
        ({"count": 0}, Invalid, "nothing was asked for"),
    ],
)
def test_bad_specs_are_refused_and_leave_nothing(
    cloud: Rig, spec: dict[str, Any], error: type[RackflowError], words: str
) -> None:
    with pytest.raises(error, match=words):
        ask(cloud, **spec)
    assert cloud.claim() == []
    ask(cloud)  # the name is still free


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "nothing was asked for"),
        ({"instances": []}, "nothing was asked for"),
        ({"instances": "web"}, "nothing was asked for"),
        ({"instances": ["web"]}, "instances.0"),
        ({"instance": []}, "unknown field instance"),
    ],
)
def test_bad_bodies_are_refused(cloud: Rig, body: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        cloud.submit(Verb.DEPLOY, body)


def test_all_that_is_wrong_is_told_at_once(cloud: Rig) -> None:
    with pytest.raises(Invalid) as refused:
        cloud.submit(Verb.DEPLOY, both({"name": "A"}, {"name": "b", "cpu": 0}))
    assert [error["field"] for error in refused.value.evidence["errors"]] == ["instances.0.name", "instances.1.cpu"]


def test_names_are_unique_within_a_request_and_in_the_cloud(cloud: Rig) -> None:
    with pytest.raises(Invalid, match="stands twice"):
        cloud.ask("web", "web")
    with pytest.raises(Invalid, match="stands twice"):
        cloud.submit(Verb.DEPLOY, both({"name": "web-1"}, {"name": "web", "count": 2}))
    cloud.ask("web")
    with pytest.raises(Conflict, match="instance web exists already"):
        cloud.ask("db", "web")
    cloud.ask("db")


def test_a_name_is_free_again_after_its_instance_is_deleted(cloud: Rig) -> None:
    (first,) = cloud.deploy("web")
    cloud.delete("web")
    (second,) = cloud.deploy("web")
    assert first != second
    assert cloud.show("web")["id"] == second
    assert cloud.show(first)["state"] == "deleted"


def test_kind_network_and_disk_are_filled_in(cloud: Rig) -> None:
    cloud.image("box", kind="container", sha256="cd" * 32)
    cloud.ask("web", disks=[{"name": "data", "size": 100}])
    cloud.ask("jar", image="box", disk=200)
    web, jar = cloud.show("web"), cloud.show("jar")
    nic = {"network": "lan", "address": None, "index": None}
    assert (web["kind"], web["spec"]["nics"], web["disk_mib"]) == ("vm", [nic], 164)
    assert (jar["kind"], jar["disk_mib"]) == ("container", 200)


def test_an_image_says_how_much_memory_it_needs(cloud: Rig) -> None:
    cloud.image("big", min_memory=1024)
    with pytest.raises(Invalid, match="needs 1024 MiB"):
        ask(cloud, image="big")
    ask(cloud, image="big", memory=1024)


def test_without_a_default_network_one_must_be_named(rig: Rig) -> None:
    rig.network(default_for=["container"])
    rig.image()
    with pytest.raises(Invalid, match="no network is the default for a vm"):
        rig.ask("web")
    rig.ask("web", nics=[{"network": "lan"}])


def test_disks_of_one_instance_lie_on_one_datastore(cloud: Rig) -> None:
    disks = [{"name": "a", "size": 1, "datastore": "local"}, {"name": "b", "size": 1, "datastore": "other"}]
    with pytest.raises(Unsupported, match="one datastore"):
        ask(cloud, disks=disks)
    ask(cloud, disks=disks[:1])
    assert cloud.show("web")["spec"]["requirements"]["datastore"] == "local"


def test_a_fixed_address_is_given_to_one(cloud: Rig) -> None:
    nic = {"network": "lan", "address": "10.9.0.77"}
    cloud.deploy("web", nics=[nic])
    assert cloud.show("web")["addresses"] == ["10.9.0.77"]
    with pytest.raises(Conflict, match=r"10\.9\.0\.77 is leased"):
        cloud.ask("db", nics=[nic])
    with pytest.raises(Invalid, match="stands twice"):
        cloud.ask("a", "b", nics=[{"network": "lan", "address": "10.9.0.78"}])


def test_the_same_key_gives_the_first_answer_and_another_body_is_refused(cloud: Rig) -> None:
    body = {"instances": [{"name": "web", "image": "tiny", "count": 2}]}
    first = cloud.submit(Verb.DEPLOY, body, key="k" * 300)
    again = cloud.submit(Verb.DEPLOY, body, key="k" * 300)
    assert (first.repeated, again.repeated) == (False, True)
    assert [op.id for op in again.operations] == [op.id for op in first.operations]
    with pytest.raises(Conflict, match="idempotency key"):
        cloud.submit(Verb.DEPLOY, {"instances": [{"name": "db", "image": "tiny"}]}, key="k" * 300)
    with pytest.raises(Conflict, match="idempotency key"):
        cloud.submit(Verb.DELETE, {"instances": ["web-1"]}, key="k" * 300)
    eve = cloud.user("eve")
    assert not cloud.submit(Verb.DEPLOY, both({"name": "db"}), by=eve, key="k" * 300).repeated


def test_a_request_that_failed_did_not_use_up_its_key(cloud: Rig) -> None:
    with pytest.raises(NotFound):
        cloud.submit(Verb.DEPLOY, {"instances": [{"name": "web", "image": "none"}]}, key="k")
    assert not cloud.submit(Verb.DEPLOY, {"instances": [{"name": "web", "image": "tiny"}]}, key="k").repeated


@pytest.mark.parametrize(
    ("quota", "words"),
    [((1, None, None), "1 instances"), ((None, 1.5, None), "1.5 cores"), ((None, None, 300), "300 MiB of memory")],
)
def test_a_quota_is_held(cloud: Rig, quota: tuple[int | None, float | None, int | None], words: str) -> None:
    eve = cloud.user("eve")
    cloud.run(lambda c: quotas.set_limits(c, cloud.admin, "eve", quotas.Amount(*quota)))
    cloud.ask("a", by=eve)
    with pytest.raises(Denied, match=words):
        cloud.ask("b", by=eve)
    cloud.ask("c")  # others are not concerned
    cloud.delete("a")
    cloud.ask("b", by=eve)


def test_quotas_are_set_by_administrators_and_seen_by_their_owners(cloud: Rig) -> None:
    eve, bob = cloud.user("eve"), cloud.user("bob")
    with pytest.raises(Denied):
        cloud.run(lambda c: quotas.set_limits(c, eve, "eve", quotas.Amount(9, 9, 9)))
    with pytest.raises(Invalid):
        cloud.run(lambda c: quotas.set_limits(c, cloud.admin, "eve", quotas.Amount(-1, None, None)))
    with pytest.raises(NotFound):
        cloud.run(lambda c: quotas.set_limits(c, cloud.admin, "none", quotas.Amount(1, None, None)))
    assert cloud.run(lambda c: quotas.show(c, eve))["quota"] == {"instances": None, "cpu": None, "memory_mib": None}
    with pytest.raises(Denied):
        cloud.run(lambda c: quotas.show(c, bob, "eve"))


def test_a_thousand_are_accepted_in_few_statements(cloud: Rig) -> None:
    statements: list[str] = []

    def count(c: sa.Connection) -> None:
        sa.event.listen(c, "before_cursor_execute", lambda *args: statements.append(args[2]))
        body = {"instances": [{"name": "web", "image": "tiny", "count": 1000}]}
        assert len(requests.submit(c, cloud.admin, Verb.DEPLOY, body, source="test").operations) == 1000

    cloud.run(count)
    assert len(statements) < 20
    ops = cloud.claim()
    assert [op.subject_name for op in ops] == [f"web-{n}" for n in range(1, 1001)]
    assert {op.state for op in ops} == {OperationState.RUNNING}
