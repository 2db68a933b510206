"""Samples of what can be given away and what is."""

from __future__ import annotations

from typing import Any

from control import allocation, hosts
from tests.rig import Rig


def by_resource(rig: Rig, noun: str) -> dict[tuple[str, str], tuple[float, float]]:
    found: list[dict[str, Any]] = rig.run(allocation.samples)
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
