"""Samples of what can be given away and what is."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from blueprints.cluster import ClusterSpec
from control import allocation, clusters, hosts, tables
from core.clock import now
from tests.rig import Rig


def by_resource(
    rig: Rig, noun: str, features: dict[str, Any] | None = None
) -> dict[tuple[str, str], tuple[float, float]]:
    found: list[dict[str, Any]] = rig.run(lambda c: allocation.samples(c, features))
    return {(one["name"], one["resource"]): (one["total"], one["used"]) for one in found if one["noun"] == noun}


def test_hosts_and_their_cluster(cloud: Rig) -> None:
    before = by_resource(cloud, "cluster")
    cloud.deploy("a", "b", cpu=1.5, memory=256)
    held = by_resource(cloud, "host")
    total_cpu = 4 * 4.0  # cores x the cluster's overcommit
    assert {total for (_, resource), (total, _) in held.items() if resource == "cpu"} == {total_cpu}
    assert sum(used for (_, resource), (_, used) in held.items() if resource == "cpu") == 3.0
    assert before[("default", "cpu")] == (2 * total_cpu, 0.0)
    assert by_resource(cloud, "cluster") == {("default", "cpu"): (2 * total_cpu, 3.0),
                                             ("default", "memory_mib"): (2 * 4096.0, 512.0)}  # fmt: skip


def test_a_host_taken_out_gives_nothing(cloud: Rig) -> None:
    cloud.run(lambda c: hosts.disable(c, cloud.admin, "h1"))
    held = by_resource(cloud, "host")
    assert held[("h1", "cpu")] == (0.0, 0.0)
    assert held[("h2", "cpu")][0] > 0


def test_addresses_and_disks(cloud: Rig) -> None:
    [(_, (total, used))] = by_resource(cloud, "network").items()
    assert used == 0
    cloud.deploy("a")
    assert by_resource(cloud, "network") == {("lan", "addresses"): (total, 1.0)}
    disks = by_resource(cloud, "datastore")
    assert disks
    assert all(0 <= used <= total for total, used in disks.values())


def test_cores_are_counted_by_what_is_used_where_that_is_the_rule(cloud: Rig) -> None:
    """The same rule as placement's: four cores each, of which two instances of 3 cores demand half a core each."""
    cloud.run(lambda c: clusters.ensure(c, cloud.admin, ClusterSpec(name="default", cpu_learned_max=8)))
    cloud.deploy("a", "b", cpu=3)
    at = {name: cloud.show(name)["host"] for name in "ab"}
    uses: dict[str, dict[str, Any]] = {host: {"uses": {}} for host in at.values()}
    for name, host in at.items():
        uses[host]["uses"][cloud.show(name)["id"]] = [0.5, 3.0]
    known = {"use_at": now().timestamp(), "hosts": uses}
    assert by_resource(cloud, "cluster")[("default", "cpu")] == (8.0, 6.0), "nothing is known: allocated counts"
    assert by_resource(cloud, "cluster", known)[("default", "cpu")] == (8.0, 1.0)


def test_no_core_for_pinning_and_no_huge_page_is_given_twice(cloud: Rig) -> None:
    hardware = {"cells": [{"cpus": [0, 1, 2, 3], "memory_mib": 4096}], "pinned": [2, 3], "pages": {"2048": 1024},
                "pci": []}  # fmt: skip
    t = tables.host
    cloud.run(lambda c: c.execute(sa.update(t).where(t.c.name == "h1").values(hardware=hardware, memory_overcommit=2)))
    held = by_resource(cloud, "host")
    assert held[("h1", "cpu")] == (2 * 4.0 + 2, 0.0)
    assert held[("h1", "memory_mib")] == (2 * 3072.0 + 1024, 0.0)
