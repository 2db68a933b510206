"""What goes wrong at a point of an operation, and how it is put right again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar
from unittest.mock import patch

import sqlalchemy as sa

from control import operations
from control.operations import Operation
from control.store import Store
from core.errors import Conflict, NotFound, Unreachable
from core.states import Verb
from drivers.fake_world import world
from tasks.runtime import Runtime
from tests.chaos.scene import FOR_EVER_S, GoneStore, StraightStore, fire, host_names, restart, row_of
from tests.integration.line import Line

T = TypeVar("T")


class Fault(StrEnum):
    WORKER = "worker killed"
    WORKER_HANGS = "worker hangs, its lock on the host stays"
    FRONT_END = "front-end killed"
    ANSWER = "answer lost"
    DAEMON = "hypervisor daemon dies"
    SSH = "SSH dies"
    POWER_SOURCE = "power loss of the source"
    POWER_TARGET = "power loss of the target"
    CANCEL = "cancelled"
    DELETE = "delete asked for"
    FULL = "datastore full"
    TIMEOUT = "step hangs past its deadline"


KILLS = (Fault.WORKER, Fault.WORKER_HANGS, Fault.FRONT_END)
POWER = (Fault.POWER_SOURCE, Fault.POWER_TARGET)
INSIDE = (Fault.ANSWER, Fault.TIMEOUT)  # of a call to a host only
CONNECT_S = 10.0  # all real calls have deadlines of their own; that of a connect is shared by all who wait for it
COMMIT = "commit"  # a step's end on its way into the record: only a kill is of interest there


@dataclass(frozen=True)
class Point:
    """Where an operation is: in which step, at what, for the how-manieth time. hosts: source and other, then."""

    step: str
    what: str  # begun, commit, ended, undone, or a verb of a driver with its phase
    count: int
    host: str = ""  # that a call goes to
    source: str = ""
    target: str = ""

    @property
    def name(self) -> str:
        return f"{self.step}:{self.what}#{self.count}"

    @property
    def in_call(self) -> bool:
        return "." in self.what

    def allows(self, fault: Fault) -> bool:
        """Say whether the fault makes sense here."""
        if self.what == COMMIT:
            return fault in KILLS
        if fault in INSIDE:
            return self.in_call and (fault is Fault.TIMEOUT or self.what.endswith("after"))
        if fault is Fault.POWER_SOURCE:
            return bool(self.source)
        if fault is Fault.POWER_TARGET:
            return bool(self.target)
        if fault in (Fault.DAEMON, Fault.SSH, Fault.FULL):
            return bool(self.host or self.source or self.target)
        return True


class KilledInCommit(Exception):
    """The worker dies while a transaction runs: it is rolled back."""


@dataclass
class Watch:
    """Follows one operation step by step, call by call, and tells each point to `at`."""

    line: Line
    op_id: str
    source: str
    at: Callable[[Point], Awaitable[None]]
    step: str = "claim"
    dead: bool = False
    now_begun: list[tuple[str, str]] = field(default_factory=list)
    _counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def point(self, what: str, host: str = "") -> Point:
        key = (self.step, what)
        self._counts[key] = self._counts.get(key, 0) + 1
        return Point(self.step, what, self._counts[key], host)

    def placed(self, point: Point) -> Point:
        """Return a point with the hosts that the record has the instance on at this moment."""
        row = row_of(self.line, self.line.operations([self.op_id])[0].subject_id)
        known = host_names(self.line)
        on = [known.get(row["host_id"], ""), known.get(row["other_host_id"], "")]
        return replace(point, source=self.source, target=next((h for h in on if h and h != self.source), ""))

    async def on_call(self, host: str, verb: str, phase: str) -> None:
        if self.dead:
            raise asyncio.CancelledError
        await self.at(self.point(f"{verb} {phase}", host))

    async def on_commit(self) -> None:
        begun, self.now_begun = self.now_begun, []
        for step, what in begun:
            if what == "begun":
                self.step = step
            await self.at(self.point(what))


class WatchedStore(StraightStore):
    """Tells the watch what stands in the record once it stands there. store: the one that it stands before."""

    def __init__(self, store: Store, watch: Watch) -> None:
        self.store, self.watch = store, watch

    async def write(self, change: Callable[[sa.Connection], T]) -> T:
        try:
            value = self.store.write_now(change)
        except KilledInCommit:
            raise asyncio.CancelledError from None
        await self.watch.on_commit()
        return value

    async def read(self, look: Callable[[sa.Connection], T]) -> T:
        return self.store.read_now(look)


def noted(watch: Watch, what: str, call: Callable[..., T], inside: Callable[[Point], None]) -> Callable[..., T]:
    """Return a function of the ledger that notes the steps which it begins, ends or undoes."""

    def names(c: sa.Connection, op: Operation, sequence: int, *more: Any) -> str:
        found = operations.steps_of(c, [op.id])[op.id]
        return next((step.name for step in found if step.sequence == sequence), "")

    def wrapped(c: sa.Connection, *args: Any, **more: Any) -> T:
        value = call(c, *args, **more)
        each = args[0] if isinstance(args[0], list) else [args]
        for one in each:
            if one[0].id == watch.op_id:
                step = names(c, *one)
                if what == "ended":
                    inside(Point(step, COMMIT, 1))
                watch.now_begun.append((step, what))
        return value

    return wrapped


@contextmanager
def watching(watch: Watch, inside: Callable[[Point], None]) -> Iterator[None]:
    """Follow an operation while the context stands. inside: called in the transaction that ends a step."""
    runtime = watch.line.runtime
    runtime.store = WatchedStore(watch.line.store, watch)
    world.on_call = watch.on_call
    parts = {"begin_step": "begun", "begin_steps": "begun", "end_step": "ended", "end_steps": "ended",
             "undo_step": "undone"}  # fmt: skip
    patches = [
        patch.object(operations, name, noted(watch, what, getattr(operations, name), inside))
        for name, what in parts.items()
    ]
    try:
        for one in patches:
            one.start()
        yield
    finally:
        for one in patches:
            one.stop()
        world.on_call = None
        if isinstance(runtime.store, WatchedStore):
            runtime.store = watch.line.store


class Strike:
    """One fault that happens at one point, and lasts until it is healed. undone_at: a point where it is cancelled
    before, so that the fault meets it while it is being undone.
    """

    def __init__(self, fault: Fault | None, point: str, line: Line, undone_at: str = "") -> None:
        self.fault, self.point, self.line, self.undone_at = fault, point, line, undone_at
        self.struck: Point | None = None
        self.hurt: list[str] = []
        self.used: dict[int, tuple[Any, int]] = {}
        self.watch: Watch | None = None
        self.replaced: Runtime | None = None
        self.lasting: Callable[[Point], Awaitable[None]] | None = None

    async def at(self, point: Point) -> None:
        if point.name == self.undone_at:
            await self._cancel(lambda c: operations.cancel(c, self.line.admin, self._op))
        if self.struck is None and point.name == self.point:
            assert self.watch is not None
            self.struck = self.watch.placed(point)
            await self._strike(self.struck)
        elif self.lasting is not None:
            await self.lasting(point)

    def inside(self, point: Point) -> None:
        if self.struck is None and point.name == self.point:
            self.struck = point
            self._die()
            raise KilledInCommit

    def _die(self) -> None:
        assert self.watch is not None
        self.watch.dead = True
        self.line.runtime.store = GoneStore()

    async def _strike(self, point: Point) -> None:
        fault, line, host = self.fault, self.line, point.host or point.source or point.target
        if fault in KILLS:
            self._die()
            raise asyncio.CancelledError
        if fault is Fault.ANSWER:
            raise Unreachable(f"host {host}: no answer to {point.what}", f"host/{host}")
        if fault is Fault.DAEMON:
            self.lasting = self._no_daemon(host)
            await self.lasting(point)
        elif fault is Fault.SSH:
            self.hurt.append(host)
            world.cut(host)
        elif fault in POWER:
            self.hurt.append(point.source if fault is Fault.POWER_SOURCE else point.target)
            world.crash(self.hurt[-1])
        elif fault is Fault.FULL:
            self._fill(host)
        elif fault is Fault.TIMEOUT:
            await self._hang(point)
        elif fault is Fault.CANCEL:
            await self._cancel(lambda c: operations.cancel(c, line.admin, self._op))
        elif fault is Fault.DELETE:
            (op,) = line.operations([self._op])
            with suppress(Conflict, NotFound):
                line.submit(Verb.DELETE, {"instances": [op.subject_id]})
            await line.runtime.look_for_cancels()

    @property
    def _op(self) -> str:
        assert self.watch is not None
        return self.watch.op_id

    async def _cancel(self, change: Callable[[sa.Connection], object]) -> None:
        with suppress(Conflict):
            self.line.store.write_now(change)
        await self.line.runtime.look_for_cancels()

    def _no_daemon(self, host: str) -> Callable[[Point], Awaitable[None]]:
        async def fail(point: Point) -> None:
            if point.host == host and point.what.startswith("hypervisor."):
                raise Unreachable(f"host {host}: connection to the hypervisor lost", f"host/{host}")

        return fail

    async def _hang(self, point: Point) -> None:
        async def hang(again: Point) -> None:
            if again.host == point.host and again.what == point.what:
                await asyncio.sleep(CONNECT_S if "connect" in again.what else FOR_EVER_S)
                raise Unreachable(f"host {again.host}: {again.what} took too long", f"host/{again.host}")

        if point.what.endswith("before"):
            self.lasting = hang
        await hang(point)

    def _fill(self, host: str) -> None:
        for store in world.host(host).stores.values():
            self.used[id(store)] = (store, store.used_mib)
            store.used_mib = store.total_mib

    async def heal(self) -> None:
        """Put right what went wrong; who was killed is replaced."""
        self.lasting = None
        for store, used_mib in self.used.values():
            store.used_mib = used_mib
        for host in self.hurt:
            world.revive(host)
        if self.struck is None or self.fault not in KILLS:
            return
        old = self.line.runtime
        if self.fault is not Fault.WORKER_HANGS:
            await old.pool.close()
        (restart if self.fault is Fault.FRONT_END else fire)(self.line)
        self.replaced = old

    async def end(self) -> None:
        """Close what a hanging worker held open."""
        if self.replaced is not None:
            await self.replaced.pool.close()
