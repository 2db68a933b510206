"""What one round of reconcile costs on simulated hosts with nothing wrong: part of `scripts/bench lifecycle`."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.cloud import say
from blueprints.network import NetworkSpec
from control import networks, operations
from core.states import OperationState, Verb
from drivers.fake_world import world
from tasks.runtime import set_runtime
from tests.integration.line import Line, make_line, without_prefect

HOSTS, INSTANCES, ROUNDS = 100, 5000, 3
AT_ONCE = 1000
CLAIM_S = 3600.0
WIDE = {
    "name": "wide", "bridge": "br0", "subnet": "10.10.0.0/16",
    "ranges": [{"first": "10.10.0.10", "last": "10.10.200.250"}],
}  # fmt: skip


async def _fill(line: Line, count: int) -> None:
    """Deploy containers through placement and drivers, as anybody would. Raise RuntimeError when one is not made."""
    wide = NetworkSpec.model_validate(WIDE)
    line.store.write_now(lambda c: networks.ensure(c, line.admin, wide))
    for first in range(0, count, AT_ONCE):
        spec = {
            "name": f"box{first}", "image": "box", "cpu": 0.1, "memory": 64, "nics": [{"network": "wide"}],
            "count": min(AT_ONCE, count - first),
        }  # fmt: skip
        ended = await line.run(Verb.DEPLOY, {"instances": [spec]})
        if bad := [op for op in ended if op.state is not OperationState.DONE]:
            raise RuntimeError(f"{len(bad)} were not deployed: {bad[0].error or bad[0].reason}")


async def _round(line: Line, hosts: int, count: int) -> float:
    """Look at all hosts once; return CPU seconds of this process. Raise RuntimeError unless all is seen, and well."""
    before = time.process_time()
    (op,) = await line.run(Verb.RECONCILE, {})
    used = time.process_time() - before
    steps = line.store.read_now(lambda c: operations.steps_of(c, [op.id]))[op.id]
    looks = [step.evidence or {} for step in steps]
    seen, findings = sum(look["instances"] for look in looks), [kind for look in looks for kind in look["findings"]]
    if op.state is not OperationState.DONE or len(looks) != hosts or seen != count or findings:
        raise RuntimeError(f"{op.state}: {seen} instances on {len(looks)} hosts, found {findings[:5]}")
    return used


async def _measure(folder: Path, hosts: int, count: int) -> float:
    line = await make_line(folder, hosts)
    line.runtime.claim_until = time.monotonic() + CLAIM_S  # nobody renews it here
    try:
        say(f"deploying {count} simulated containers on {hosts} hosts")
        await _fill(line, count)
        say("reconcile")
        return median([await _round(line, hosts, count) for _ in range(ROUNDS)])
    finally:
        await line.runtime.pool.close()
        await line.store.close()
        set_runtime(None)
        world.reset()


def reconcile_cpu_s(hosts: int = HOSTS, count: int = INSTANCES) -> float:
    """Return CPU seconds of one round, all threads of the worker counted: median of some."""
    with tempfile.TemporaryDirectory() as folder, without_prefect():
        return asyncio.run(_measure(Path(folder), hosts, count))
