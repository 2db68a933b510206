"""A look at hosts: what it takes away, and how it ends when a host is broken."""

from __future__ import annotations

import os
import time
from pathlib import Path

from core.errors import HostFault
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
