"""Which spare machine helps a cluster that runs out: pure choice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from control.machine_stages import stages_for
from control.spares import Spare, propose

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SMALL = Spare("small", None, {"cpu": 16, "memory_mib": 65536})
LARGE = Spare("large", None, {"cpu": 64, "memory_mib": 2**18})


def row(days: int | None, short: float, *, cluster: str = "east", resource: str = "cpu", proven: bool = True) -> Any:
    at = None if days is None else (NOW + timedelta(days=days)).isoformat()
    return {
        "cluster": cluster, "resource": resource, "used": 90.0, "total": 100.0, "in_30_days_high": 100.0 + short,
        "earliest_at": at, "runs_out_at": None, "proven": proven,
    }  # fmt: skip


def test_the_smallest_that_is_enough() -> None:
    (one,) = propose([row(9, 12)], [LARGE, SMALL], NOW)
    assert (one.cluster, one.resource, one.machine, one.enough) == ("east", "cpu", "small", True)
    assert one.short == {"cpu": 12.0}


def test_what_is_short_of_several_things_needs_all_of_them() -> None:
    rows = [row(9, 12), row(20, 100_000, resource="memory_mib")]
    (one,) = propose(rows, [SMALL, LARGE], NOW)
    assert (one.machine, one.resource) == ("large", "cpu")


def test_the_largest_where_none_is_enough_and_nothing_where_there_is_none() -> None:
    (one,) = propose([row(9, 1000)], [SMALL, LARGE], NOW)
    assert (one.machine, one.enough) == ("large", False)
    (none,) = propose([row(9, 1000)], [], NOW)
    assert (none.machine, none.enough) == (None, False)


@pytest.mark.parametrize("days", [None, 31, 300])
def test_what_lasts_is_not_seen_to(days: int | None) -> None:
    assert propose([row(days, 12)], [SMALL], NOW) == []


def test_each_spare_helps_one_cluster_the_most_urgent_first() -> None:
    rows = [row(20, 1, cluster="west"), row(2, 1, cluster="east"), row(5, 1, cluster="north", proven=False)]
    found = propose(rows, [SMALL, LARGE], NOW)
    assert [(one.cluster, one.machine, one.proven) for one in found] == [
        ("east", "small", True), ("north", "large", False), ("west", None, True),
    ]  # fmt: skip


def test_a_spare_that_belongs_to_another_cluster_helps_nobody_else() -> None:
    (one,) = propose([row(9, 1)], [Spare("m", "west", {"cpu": 64, "memory_mib": 2**18})], NOW)
    assert one.machine is None


def test_other_resources_have_other_remedies() -> None:
    assert propose([row(1, 1, resource="disk_mib")], [SMALL], NOW) == []


def test_a_spare_waits_with_becoming_a_host() -> None:
    spec: dict[str, Any] = {"host": {"role": "kvm"}, "install": {"image": "x"}}
    assert stages_for({**spec, "spare": True}) == ["power", "inspect", "classify", "check"]
    assert stages_for(spec)[4:] == ["ramdisk", "install", "boot", "configure", "enroll", "verify"]


def test_ironic_boots_a_ramdisk_of_its_own() -> None:
    spec = {"host": {"role": "kvm"}, "install": {"image": "x", "by": "ironic"}}
    assert stages_for(spec)[4:] == ["install", "boot", "configure", "enroll", "verify"]
