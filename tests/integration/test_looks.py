"""A look at hosts: what it takes away, and how it ends when a host is broken."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from analytics.client import AnalyticsClient
from control import drift, hosts, tables
from core.errors import HostFault, Unreachable
from core.states import OperationState, Verb
from drivers.fake_world import ANY, world
from tasks.images import CUT_OFF_FOR_S
from tests.integration.line import Line


def _left(folder: Path, name: str, age_s: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_bytes(b"half")
    os.utime(file, (time.time() - age_s,) * 2)
    return file


async def test_what_imports_left_half_way_is_taken_away_after_a_day(line: Line) -> None:
    folder = line.settings.paths.images_dir
    old = [_left(folder, name, CUT_OFF_FOR_S + 60) for name in (".0123456789ab.part", ".0123456789ab.qcow2")]
    fresh = _left(folder, ".ba9876543210.part", CUT_OFF_FOR_S - 600)
    (op,) = await line.run(Verb.RECONCILE, {"hosts": []})
    assert op.state is OperationState.DONE
    assert [file.exists() for file in (*old, fresh)] == [False, False, True]


async def test_a_look_at_a_broken_host_ends_and_the_next_one_looks_again(line: Line) -> None:
    world.fail("f0", ANY, HostFault("libvirtd does not run there", "host/f0"), times=1)
    (failed,) = await line.run(Verb.RECONCILE, {"hosts": []})
    assert (failed.state, failed.error and failed.error["code"]) == (OperationState.FAILED, "host-fault")
    (after,) = await line.run(Verb.RECONCILE, {"hosts": []})
    assert after.state is OperationState.DONE


async def test_a_host_that_comes_back_with_less_offers_less_and_tells(line: Line) -> None:
    def size() -> tuple[float, int]:
        host = line.store.read_now(lambda c: hosts.get(c, "f0"))
        return host.cpus, host.memory_mib

    def told() -> list[tuple[str, dict[str, int], dict[str, int]]]:
        rows = line.store.read_now(lambda c: drift.list_(c, line.admin))
        return [(row["kind"], row["recorded"], row["seen"]) for row in rows]

    whole = size()
    for memory_mib, drifts in (
        (49152, [("shrunk", {"memory_mib": whole[1]}, {"memory_mib": 49152})]),
        (57344, [("shrunk", {"memory_mib": whole[1]}, {"memory_mib": 49152})]),  # not all of it is back
        (whole[1], []),
        (whole[1] * 2, []),
    ):
        world.hosts["f0"].memory_mib = memory_mib
        await line.run(Verb.RECONCILE, {"hosts": ["f0"]})
        assert (size(), told()) == ((whole[0], memory_mib), drifts)


async def test_a_host_with_a_declared_size_keeps_it(line: Line) -> None:
    line.store.write_now(lambda c: c.execute(
        sa.update(tables.host).where(tables.host.c.live_name == "f0").values(spec={"memory_mib": 65536})
    ))  # fmt: skip
    world.hosts["f0"].memory_mib, world.hosts["f0"].cpus = 1024, 8
    await line.run(Verb.RECONCILE, {"hosts": ["f0"]})
    host = line.store.read_now(lambda c: hosts.get(c, "f0"))
    assert (host.cpus, host.memory_mib) == (8, 65536)


class _Owner(AnalyticsClient):
    """Takes usage samples as the history's owner does. away: it does not answer."""

    def __init__(self, *, away: bool = False) -> None:
        super().__init__("/nowhere")
        self.away, self.taken = away, list[list[Mapping[str, Any]]]()

    def put_usage(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self.away:
            raise Unreachable("the history does not answer", "analytics")
        self.taken.append(list(rows))


async def test_usage_of_all_hosts_reaches_the_history_in_fewer_calls_than_hosts(line: Line) -> None:
    line.runtime.analytics = owner = _Owner()
    await line.run(Verb.RECONCILE, {"hosts": []})
    told = sorted(row["host"] for rows in owner.taken for row in rows if row["instance_id"] is None)
    assert told == ["f0", "f1", "f2"]
    assert len(owner.taken) < 3


async def test_a_look_waits_for_no_history(line: Line) -> None:
    line.runtime.analytics = _Owner(away=True)
    (op,) = await line.run(Verb.RECONCILE, {"hosts": []})
    assert op.state is OperationState.DONE
