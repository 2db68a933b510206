"""Images, networks, datastores, clusters: made, changed, used, taken away."""

from __future__ import annotations

from typing import Any

import pytest

from blueprints.cluster import ClusterSpec
from blueprints.datastore import DatastoreSpec
from control import clusters, datastores, hosts, images, networks, operations
from core.errors import Conflict, Denied, HostFault, Invalid, NotFound
from core.states import CopyState, ImageState, OperationState, Verb
from tests.rig import SHA, Rig


def state(cloud: Rig, name: str) -> ImageState:
    return cloud.run(lambda c: images.get(c, name)).state


def test_an_import_goes_its_way_and_can_be_tried_again(cloud: Rig) -> None:
    body = {"images": [{"name": "new", "source": "/new.qcow2"}]}
    cloud.submit(Verb.IMPORT, body)
    assert state(cloud, "new") is ImageState.PENDING
    with pytest.raises(Conflict, match="is busy"):
        cloud.submit(Verb.IMPORT, body)
    (op,) = cloud.claim()
    assert state(cloud, "new") is ImageState.IMPORTING
    cloud.run(lambda c: operations.finish(c, op, OperationState.FAILED, error=Invalid("wrong checksum")))
    failed = cloud.run(lambda c: images.show(c, cloud.admin, "new"))
    assert (failed["state"], failed["error"]["message"]) == ("failed", "wrong checksum")
    with pytest.raises(Conflict, match="is failed"):
        cloud.ask("web", image="new")
    cloud.submit(Verb.IMPORT, {"images": [{"name": "new", "source": "/better.qcow2"}]})
    assert cloud.run(lambda c: images.get(c, "new")).source == "/better.qcow2"
    with pytest.raises(Conflict, match="exists already"):
        cloud.submit(Verb.IMPORT, {"images": [{"name": "tiny", "source": "/x"}]})


def test_an_image_in_use_stays_and_a_removal_that_fails_is_taken_back(cloud: Rig) -> None:
    cloud.deploy("web")
    with pytest.raises(Conflict, match="is used by web"):
        cloud.submit(Verb.REMOVE, {"images": ["tiny"]})
    cloud.delete("web")
    cloud.submit(Verb.REMOVE, {"images": ["tiny"]})
    assert state(cloud, "tiny") is ImageState.DELETING
    with pytest.raises(Conflict, match="is deleting"):
        cloud.ask("web")
    (op,) = cloud.claim()
    cloud.run(lambda c: operations.finish(c, op, OperationState.FAILED, error=HostFault("h1 is silent")))
    assert state(cloud, "tiny") is ImageState.READY
    cloud.ask("web")
    with pytest.raises(NotFound):
        cloud.submit(Verb.REMOVE, {"images": ["none"]})


def test_copies_that_another_image_needs_are_kept(cloud: Rig) -> None:
    cloud.image("twin")  # the same content
    host = cloud.run(lambda c: datastores.show(c, cloud.admin, "local"))
    store_id = host["id"]
    h1 = cloud.run(lambda c: hosts.get(c, "h1"))
    cloud.run(lambda c: images.record_copy(c, SHA, h1.id, store_id, CopyState.READY, 5))
    tiny = cloud.run(lambda c: images.get(c, "tiny"))
    assert cloud.run(lambda c: images.others_with(c, tiny)) == ["twin"]
    assert cloud.run(lambda c: images.copies_to_remove(c, tiny)) == []
    cloud.submit(Verb.REMOVE, {"images": ["twin"]})
    (op,) = cloud.claim()
    cloud.run(lambda c: images.mark_deleted(c, op, op.subject_id))
    assert [h.name for h, _ in cloud.run(lambda c: images.copies_to_remove(c, tiny))] == ["h1"]
    cloud.run(lambda c: images.forget_copy(c, SHA, h1.id))
    assert cloud.run(lambda c: images.copies(c, [SHA])) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bridge": "br1"}, "bridge"),
        ({"subnet": "10.9.0.0/16"}, "subnet"),
        ({"ranges": [{"first": "10.9.0.20", "last": "10.9.0.250"}]}, r"10\.9\.0\.10, which is leased"),
    ],
)
def test_a_network_in_use_keeps_what_leases_rest_on(cloud: Rig, change: dict[str, Any], words: str) -> None:
    cloud.deploy("web")
    with pytest.raises(Conflict, match=words):
        cloud.network(**change)
    cloud.network(labels={"a": "b"}, nameservers=["10.9.0.2"])
    cloud.network(ranges=[{"first": "10.9.0.10", "last": "10.9.0.20"}])
    shown = cloud.run(lambda c: networks.show(c, cloud.admin, "lan"))
    assert (shown["labels"], shown["free"], shown["nameservers"]) == ({}, 10, [])
    with pytest.raises(Conflict, match="is used by web"):
        cloud.run(lambda c: networks.delete(c, cloud.admin, "lan"))
    cloud.delete("web")
    cloud.network(**change)
    cloud.run(lambda c: networks.delete(c, cloud.admin, "lan"))
    assert cloud.run(lambda c: networks.list_(c, cloud.admin)) == []


def test_networks_that_clash_are_refused(cloud: Rig) -> None:
    spans = [{"first": "10.9.0.10", "last": "10.9.0.20"}, {"first": "10.9.0.20", "last": "10.9.0.30"}]
    with pytest.raises(Conflict, match="overlap"):
        cloud.network(ranges=spans)
    with pytest.raises(Conflict, match="lan is already the default for vm"):
        cloud.network(name="other", default_for=["vm"])
    with pytest.raises(NotFound, match="no cluster"):
        cloud.network(name="other", cluster="none", default_for=[])
    with pytest.raises(NotFound):
        cloud.run(lambda c: networks.delete(c, cloud.admin, "none"))


def test_ensuring_the_same_again_changes_nothing(cloud: Rig) -> None:
    before = cloud.run(networks.records)["lan"]
    assert cloud.network() == before.id
    spec = DatastoreSpec(name="local", path="/srv/rackflow")
    assert cloud.run(lambda c: datastores.ensure(c, cloud.admin, spec))[1] is False
    assert cloud.run(lambda c: clusters.ensure(c, cloud.admin, ClusterSpec(name="default")))[1] is False


def test_a_datastore_in_use_stays_where_it_is(cloud: Rig) -> None:
    cloud.deploy("web")
    moved = DatastoreSpec(name="local", path="/elsewhere")
    with pytest.raises(Conflict, match="its path cannot change"):
        cloud.run(lambda c: datastores.ensure(c, cloud.admin, moved))
    with pytest.raises(Conflict, match="holds volumes of web"):
        cloud.run(lambda c: datastores.delete(c, cloud.admin, "local"))
    cloud.delete("web")
    assert cloud.run(lambda c: datastores.ensure(c, cloud.admin, moved))[1]
    assert cloud.run(lambda c: datastores.show(c, cloud.admin, "local"))["hosts"] == [], "nothing is known of it there"
    cloud.run(lambda c: datastores.delete(c, cloud.admin, "local"))
    with pytest.raises(NotFound):
        cloud.run(lambda c: datastores.show(c, cloud.admin, "local"))


def test_a_cluster_with_something_in_it_stays(cloud: Rig) -> None:
    cloud.run(lambda c: clusters.ensure(c, cloud.admin, ClusterSpec(name="edge")))
    cloud.host("h3", cluster="edge")
    with pytest.raises(Conflict, match="host/h3"):
        cloud.run(lambda c: clusters.delete(c, cloud.admin, "edge"))
    with pytest.raises(Conflict, match="cluster default stays"):
        cloud.run(lambda c: clusters.delete(c, cloud.admin, "default"))
    with pytest.raises(NotFound):
        cloud.run(lambda c: clusters.delete(c, cloud.admin, "none"))


def test_only_administrators_change_them(cloud: Rig) -> None:
    eve = cloud.user("eve")
    for change in (
        lambda c: clusters.ensure(c, eve, ClusterSpec(name="x")), lambda c: clusters.delete(c, eve, "default"),
        lambda c: datastores.ensure(c, eve, DatastoreSpec(name="x", path="/x")),
        lambda c: datastores.delete(c, eve, "local"), lambda c: networks.delete(c, eve, "lan"),
    ):  # fmt: skip
        with pytest.raises(Denied, match="may not change"):
            cloud.run(change)
