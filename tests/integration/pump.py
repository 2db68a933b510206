"""What tests of hosts share: a dispatcher's rounds side by side, a worker that is killed, hosts with BMCs, a SAN."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from prefect import Flow

import tasks.fencing
import tasks.watch
from blueprints.datastore import DatastoreSpec
from control import datastores, hosts, operations
from control.hosts import HostRecord
from control.operations import Operation
from core.ids import on_host
from core.states import OperationState, PowerState, Verb
from drivers.fake_world import world
from tasks.runtime import set_runtime
from tasks.settle import BatchFailed
from tests.integration.line import FLOWS, Line

SAN = "/san"


class GoneStore:
    """The store as a killed worker sees it."""

    async def write(self, change: object) -> None:
        raise asyncio.CancelledError

    read = write


class Pump:
    """Rounds of the dispatcher: what a round claims runs beside what earlier ones did."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.rounds: set[asyncio.Task[Any]] = set()

    async def until(self, ids: list[str], limit_s: float = 60.0) -> list[Operation]:
        """Work until these have ended; return them."""
        async with asyncio.timeout(limit_s):
            while not all(op.finished_at for op in self.line.operations(ids)):
                await self.round()
        return self.line.operations(ids)

    async def round(self) -> None:
        """Begin a round, a flow run per verb, and let all that is under way go on for a little."""
        line = self.line
        claimed = await line.store.write(lambda c: operations.claim_pending(c, line.runtime.worker_id))
        for verb in dict.fromkeys(op.verb for op in claimed):
            ids = [op.id for op in claimed if op.verb is verb]
            self.rounds.add(asyncio.create_task(_run(FLOWS[verb], ids)))
        await asyncio.sleep(0.03)
        over = {one for one in self.rounds if one.done()}
        self.rounds -= over
        for one in over:
            one.result()

    async def rest(self) -> None:
        """Work until nothing is left to be done now."""
        async with asyncio.timeout(60):
            for _ in range(3):
                await self.round()
                while self.rounds:
                    await self.round()

    async def stop(self) -> None:
        """End what is under way."""
        for one in self.rounds:
            one.cancel()
        await asyncio.gather(*self.rounds, return_exceptions=True)
        self.rounds = set()

    async def kill(self) -> None:
        """End the worker as kill -9 does, and let another one take over."""
        line, old = self.line, self.line.runtime
        old.store = GoneStore()  # type: ignore[assignment]  # nothing is written after this
        await self.stop()
        await line.store.write(lambda c: operations.renew_claim(c, old.worker_id, "test", -1))
        await old.pool.close()
        line.runtime = line.another_worker()
        line.runtime.settings = old.settings
        set_runtime(line.runtime)
        await line.store.write(lambda c: operations.renew_claim(c, line.runtime.worker_id, "test", 3600))


async def _run(flow: Flow[..., Any], ids: list[str]) -> None:
    with suppress(BatchFailed):  # each reason stands in the ledger
        await flow.fn(operations=ids)


def host_of(line: Line, name: str) -> HostRecord:
    """Return a host of the record."""
    return line.store.read_now(lambda c: hosts.get(c, name))


def at_once(line: Line) -> None:
    """Let a host that was silent in two looks count as silent for long enough."""
    settings = line.settings
    line.runtime.settings = replace(settings, worker=replace(settings.worker, host_silent_s=0.0))


async def look(line: Line, times: int = 1) -> None:
    """Look at all hosts."""
    for _ in range(times):
        (op,) = await line.run(Verb.RECONCILE, {"hosts": []}, rounds=1)
        assert op.state is OperationState.DONE, (op.state, op.error, op.reason)


async def with_bmcs(line: Line, count: int = 3) -> None:
    """Give every host a BMC."""
    machines = [
        {"name": f"f{i}", "address": f"10.99.0.{i + 1}", "driver": "fake", "bmc": {"address": f"fake://f{i}"}}
        for i in range(count)
    ]
    ended = await line.run(Verb.ENROLL, {"hosts": machines})
    assert {op.state for op in ended} == {OperationState.DONE}, [op.error for op in ended]


async def with_san(line: Line) -> None:
    """Make a datastore that all hosts share."""
    world.shared.add(SAN)
    spec = DatastoreSpec.model_validate({"name": "san", "path": SAN, "shared": True})
    line.store.write_now(lambda c: datastores.ensure(c, line.admin, spec))
    await look(line)


async def deploy(line: Line, *names: str, **more: Any) -> list[dict[str, Any]]:
    """Deploy VMs, let each write its name; return them."""
    wanted = [{"name": n, "image": "vm", "kind": "vm", "cpu": 1, "memory": 512, **more} for n in names]
    ended = await line.run(Verb.DEPLOY, {"instances": wanted})
    assert {op.state for op in ended} == {OperationState.DONE}, [op.error for op in ended]
    found = [line.instance(name) for name in names]
    for one in found:
        world.write(one["id"], "root", one["name"])
    return found


def running(instance_id: str) -> list[str]:
    """Return the hosts on which an instance runs, whether they answer or not."""
    return [
        host.name for host in world.hosts.values()
        if (one := host.instances.get(on_host(instance_id))) and one.power is PowerState.RUNNING
    ]  # fmt: skip


def fence_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let looks at a BMC follow each other at once, and silence be short."""
    monkeypatch.setattr(tasks.fencing, "APART_S", 0.01)
    monkeypatch.setattr(tasks.fencing, "ANSWER_S", 2.0)
    monkeypatch.setattr(tasks.watch, "BMC_S", 0.2)
