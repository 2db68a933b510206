"""Two workers over one record and one simulated world, whose every call may be late, lost, or made twice.

Both are the real thing: flows, steps, ledger. Time jumps; what either does next is decided from outside.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control import hosts, instances, operations
from control import reconcile as rows
from core.errors import Conflict, Invalid, NotFound, Unreachable, Unsupported
from core.ids import new_id
from core.states import InstanceState, PowerState, Verb
from drivers.fake_world import ANY, world
from drivers.pool import HostPool
from tasks.runtime import Runtime, set_runtime
from tests.chaos import clock
from tests.chaos.invariants import Look
from tests.chaos.scene import FOR_EVER_S, RETRY_S, Kept, fire, reconcile, retry_delay, round_, row_of, wake
from tests.integration.line import Line

_mine: ContextVar[Runtime] = ContextVar("_mine")
LOST = Unreachable("the answer was lost", "host/any")
REFUSED = (Conflict, Invalid, NotFound, Unsupported)
SETTLING_S = 60.0  # real seconds


class _Mine:
    """Stands for the runtime of whichever worker asks."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_mine.get(), name)


@dataclass
class Sight:
    """What was seen on a host at some time, not yet written down."""

    host_id: str
    host: str
    expected: list[rows.Expected]
    seen: list[tuple[str, PowerState]]


@dataclass
class Two:
    """Two workers. tokens: instance id -> what its guest wrote last."""

    line: Line
    loop: clock.JumpingLoop
    workers: list[Runtime] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    delays: deque[float] = field(default_factory=deque)
    jobs: list[asyncio.Task[Any]] = field(default_factory=list)
    written: int = 0

    @classmethod
    def begin(cls, kept: Kept, folder: Path) -> Two:
        loop = clock.JumpingLoop()
        loop.bound(SETTLING_S)
        two = cls(loop.run_until_complete(wake(kept, folder)), loop)
        two.workers = [two.line.runtime, two._worker()]
        two.renew(1)
        world.on_call = two._on_call
        set_runtime(_Mine())  # type: ignore[arg-type]
        return two

    def _worker(self) -> Runtime:
        line = self.line
        worker = Runtime(line.store, line.settings, HostPool(line.settings.drivers), new_id())
        worker.claim_until = float("inf")
        return worker

    async def _on_call(self, host: str, verb: str, phase: str) -> None:
        if self.delays:
            await asyncio.sleep(self.delays.popleft())

    # what people and workers do

    def ask(self, verb: Verb, name: str, **parameters: Any) -> str | None:
        """Ask for a verb; return the operation's id, None when it was refused."""
        with suppress(*REFUSED):
            if verb is Verb.DEPLOY:
                return self.line.submit(verb, {"instances": [{"name": name, "cpu": 1, "memory": 256, **parameters}]})[0]
            return self.line.submit(verb, {"instances": [name], **parameters})[0]
        return None

    def start(self, which: int) -> None:
        """Let a worker begin a round, beside whatever it does already."""
        context = copy_context()
        context.run(_mine.set, self.workers[which])
        self.jobs.append(self.loop.create_task(self._round(which), context=context))

    async def _round(self, which: int) -> None:
        worker = self.workers[which]
        mine = Line(self.line.store, self.line.settings, worker, self.line.admin)
        await mine.work()

    def go(self, seconds: float) -> None:
        """Let time pass. Raise what a worker's round raised."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        for job in [job for job in self.jobs if job.done()]:
            self.jobs.remove(job)
            job.result()

    def finish(self) -> None:
        """Let all that is under way come to its end."""
        while self.jobs:
            self.go(RETRY_S)

    def renew(self, which: int) -> None:
        """Let a worker's claim stand."""
        worker = self.workers[which].worker_id
        self.line.store.write_now(lambda c: operations.renew_claim(c, worker, "two", FOR_EVER_S))

    def lapse(self, which: int) -> None:
        """Let a worker's claim run out; it does not know."""
        worker = self.workers[which].worker_id
        self.line.store.write_now(lambda c: operations.renew_claim(c, worker, "two", -1))

    # what the world does

    def lose_answers(self, count: int) -> None:
        """Let the next calls be done and their answers be lost."""
        world.fail(ANY, ANY, LOST, count, after=True)

    def write(self, name: str) -> None:
        """Let a guest that runs, and that nobody is changing, write to its disk."""
        with suppress(*REFUSED):
            found = self.line.instance(name)
            if found["state"] == InstanceState.RUNNING and not Look(self.line).unfinished():
                self.written += 1
                with suppress(LookupError):
                    world.write(found["id"], "root", f"token {self.written}")
                    self.tokens[found["id"]] = f"token {self.written}"

    def look(self, host: str) -> Sight | None:
        """See what is on a host now."""
        record = self.line.store.read_now(lambda c: hosts.get(c, host))
        expected = self.line.store.read_now(lambda c: rows.expected_on(c, [record.id])[record.id])
        if not world.host(host).alive:
            return None
        seen = [(one.name, one.power) for one in world.host(host).instances.values()]
        return Sight(record.id, host, expected, seen)

    def tell(self, sight: Sight) -> None:
        """Write down what was seen, however old it is. A change since must not be overruled, nor an address freed."""
        before = {one.instance_id: self._held(one.instance_id) for one in sight.expected}
        self.line.store.write_now(lambda c: rows.record_findings(
            c, sight.host_id, sight.host, rows.compare(sight.expected, sight.seen)
        ))  # fmt: skip
        for one in sight.expected:
            state, epoch, addresses = before[one.instance_id]
            now = self._held(one.instance_id)
            assert now[2] == addresses, "an observation freed an address"
            if one.busy or epoch != one.epoch:
                assert now == (state, epoch, addresses), "a late observation overruled a newer change"

    def _held(self, instance_id: str) -> tuple[str, int, tuple[str, ...]]:
        row = row_of(self.line, instance_id)
        views = self.line.store.read_now(lambda c: instances.deployables(c, [instance_id]))
        return row["state"], row["epoch"], tuple(str(lease.address) for lease in views[instance_id].leases)

    # the end

    def settle_down(self) -> dict[str, list[str]]:
        """Heal everything, let both workers die and another one bring all to its end; return what is wrong then."""
        self.delays.clear()
        world.faults.clear()
        for name in world.hosts:
            world.revive(name)
        self.finish()
        for worker in self.workers:
            self.loop.run_until_complete(worker.locks.close())
            self.loop.run_until_complete(worker.pool.close())
            self.lapse(self.workers.index(worker))
        fire(self.line)
        self.loop.run_until_complete(self._quiet())
        return self.wrong()

    async def _quiet(self) -> None:
        for _ in range(3):
            await retry_delay(self.line)
        for _ in range(2):
            await reconcile(self.line)
        await round_(self.line)

    def wrong(self) -> dict[str, list[str]]:
        look = Look(self.line)
        found = {"unfinished": look.unfinished(), "passing": look.passing(), "leaked": look.leaked,
                 "harm": look.harm(), "lost": self._lost(look)}  # fmt: skip
        return {kind: what for kind, what in found.items() if what}

    def _lost(self, look: Look) -> list[str]:
        found = {one: look.data(one) for one in self.tokens}
        return [
            f"{self.tokens[one]} is not in {there}" for one, there in found.items()
            if there is not None and not any(self.tokens[one] in text for text in there)
        ]  # fmt: skip

    def ended(self) -> list[str]:
        """Return the operations on instances that ended after some worker had begun them."""
        return [op["id"] for op in Look(self.line).operations if op["started_at"] and op["subject"].startswith("inst")]

    def end(self) -> None:
        """Close what is open."""
        world.on_call = None
        self.loop.run_until_complete(_stop(self.jobs))
        for worker in (*self.workers, self.line.runtime):
            self.loop.run_until_complete(worker.locks.close())
            self.loop.run_until_complete(worker.pool.close())
        self.loop.close()
        set_runtime(None)


async def _stop(jobs: list[asyncio.Task[Any]]) -> None:
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
