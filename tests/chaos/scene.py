"""A line that can be kept and made again in milliseconds: its database, its files and its simulated world."""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast
from unittest.mock import patch

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import StaticPool

import tasks.images
from blueprints.datastore import DatastoreSpec
from control import access, datastores, operations, tables
from control.store import Store, _sqlite_engine
from core.ids import new_id
from core.settings import Paths, Settings
from core.states import OperationState, Verb
from drivers.fake_world import POWERS, world
from drivers.pool import HostPool
from tasks.runtime import Runtime, set_runtime
from tests.chaos.clock import skip
from tests.integration.line import Line, make_line

T = TypeVar("T")
FOR_EVER_S = 1e8
RETRY_S = 61.0  # no pause of the ledger is longer
COMMON = "/srv/common"
HOSTS = 3
_INSTANCE = sa.select(tables.instance).where(tables.instance.c.id == sa.bindparam("id"))
_HOST_NAMES = sa.select(tables.host.c.id, tables.host.c.live_name)


class StraightStore(Store):
    """The real store; its callers wait for it, so that a loop without waiting knows all that goes on."""

    async def write(self, change: Callable[[sa.Connection], T]) -> T:
        return self.write_now(change)

    async def read(self, look: Callable[[sa.Connection], T]) -> T:
        return self.read_now(look)


@dataclass(frozen=True)
class _Open:
    """What a store needs of an engine. Its one connection stays out: to take it out costs as much as a statement."""

    connection: sa.Connection

    @property
    def dialect(self) -> sa.Dialect:
        return self.connection.dialect

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        with self.connection.begin():
            yield self.connection


class MemoryStore(StraightStore):
    """A store in memory, made anew from its bytes in no time; one for all cases, so that statements stay compiled."""

    _engine: ClassVar[_Open | None] = None

    def __init__(self) -> None:
        if MemoryStore._engine is None:
            MemoryStore._engine = _Open(_memory().connect())
        self._writer = None
        self._write_engine = self._read_engine = cast(sa.Engine, MemoryStore._engine)

    @classmethod
    def forget(cls) -> None:
        """Let the next one be empty."""
        cls._engine = None

    def write_now(self, change: Callable[[sa.Connection], T]) -> T:
        return self._write(change)

    def close_now(self) -> None:
        """There is nothing to close."""

    def dump(self) -> bytes:
        return self._raw.serialize()

    def load(self, data: bytes) -> None:
        with closing(sqlite3.connect(":memory:")) as source:  # a connection that has used json_each dies of deserialize
            source.deserialize(data)
            source.backup(self._raw)

    @property
    def _raw(self) -> sqlite3.Connection:
        assert MemoryStore._engine is not None
        found = MemoryStore._engine.connection.connection.driver_connection
        assert isinstance(found, sqlite3.Connection)
        return found


def _memory() -> sa.Engine:
    engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _connect(raw: Any, _record: Any) -> None:
        raw.isolation_level = "IMMEDIATE"  # nobody else is there: reads need no transaction, and cost less so
        raw.execute("PRAGMA foreign_keys=ON")

    return engine


@cache
def _in_file(url: sa.URL, *, writer: bool) -> sa.Engine:
    """Make the real engine, once for all cases, so that statements stay compiled.

    Nobody waits for the disk: a killed process loses nothing that it wrote.
    """
    engine = _sqlite_engine(url, writer=writer)

    @event.listens_for(engine, "connect")
    def _connect(raw: sqlite3.Connection, _record: object) -> None:
        raw.execute("PRAGMA synchronous=OFF").close()

    return engine


class GoneStore(StraightStore):
    """The store as a killed worker sees it."""

    def __init__(self) -> None:
        """It is connected to nothing."""

    async def write(self, change: Callable[[sa.Connection], T]) -> T:
        raise asyncio.CancelledError

    async def read(self, look: Callable[[sa.Connection], T]) -> T:
        raise asyncio.CancelledError


@dataclass
class Kept:
    """A line at rest. facts: what the scenario wants to remember of it."""

    folder: Path
    database: bytes
    world: bytes
    facts: dict[str, Any] = field(default_factory=dict)


async def first_line(folder: Path) -> Line:
    """Make a line with two datastores on each host: local, and common to all."""
    world.reset()
    MemoryStore.forget()
    with patch("tests.integration.line.Store", lambda url: MemoryStore()):
        line = await make_line(folder, HOSTS, powers=POWERS | {"carry"})
    world.shared.add(COMMON)
    spec = DatastoreSpec(name="common", path=COMMON, shared=True)
    line.store.write_now(lambda c: datastores.ensure(c, line.admin, spec))
    for number in range(HOSTS):
        (op,) = await line.run(
            Verb.ENROLL, {"hosts": [{"name": f"f{number}", "address": f"10.99.0.{number + 1}", "driver": "fake"}]}
        )
        assert op.state is OperationState.DONE, op.error
    return line


async def keep(line: Line, folder: Path, **facts: Any) -> Kept:
    """Put a line to rest in a folder of its own."""
    await line.runtime.locks.close()
    await line.runtime.pool.close()
    assert isinstance(line.store, MemoryStore)
    _copy(line.settings.paths.data_dir, folder)
    return Kept(folder, line.store.dump(), _pack(), facts)


def _pack() -> bytes:
    for host in world.hosts.values():
        host.around, host.locks = None, {}
        assert host.running == {}, "a connection is open"
    data = pickle.dumps((world.hosts, world._common, world.shared, world.harm))
    for host in world.hosts.values():
        host.around = world
    return data


def _unpack(data: bytes) -> None:
    world.reset()
    hosts, world._common, world.shared, world.harm = pickle.loads(data)
    for host in hosts.values():
        world.add(host)
    world.strict = True


def _copy(source: Path, target: Path) -> None:
    """Copy a line's files; they are written once, so links do."""
    shutil.rmtree(target, ignore_errors=True)

    def link(path: str, to: str) -> str:
        os.link(path, to)
        return to

    shutil.copytree(source, target, copy_function=link)


async def wake(kept: Kept, folder: Path) -> Line:
    """Make a line again as it was kept, with a new worker."""
    _copy(kept.folder, folder / "data")
    _unpack(kept.world)
    (folder / "state.db").unlink(missing_ok=True)
    settings = Settings(Paths(folder / "data", folder / "run"), f"sqlite:///{folder}/state.db")
    store = MemoryStore()
    store.load(kept.database)
    admin = store.write_now(lambda c: access.named(c, "admin", access.ADMIN))
    line = Line(store, settings, Runtime(store, settings, HostPool(settings.drivers), new_id()), admin)
    hire(line, line.runtime)
    return line


def hire(line: Line, runtime: Runtime) -> None:
    """Let a worker work, whose claim stands for ever."""
    runtime.claim_until = float("inf")
    line.runtime = runtime
    set_runtime(runtime)
    line.store.write_now(lambda c: operations.renew_claim(c, runtime.worker_id, "chaos", FOR_EVER_S))


def fire(line: Line) -> None:
    """Let the worker's claim run out, and another one take its place."""
    old = line.runtime.worker_id
    line.store.write_now(lambda c: operations.renew_claim(c, old, "dead", -1))
    hire(line, Runtime(line.store, line.settings, HostPool(line.settings.drivers), new_id()))


def restart(line: Line) -> None:
    """Start the front-end anew over its files: it drops the claim of the worker that it had."""
    old = line.runtime.worker_id
    assert isinstance(line.store, MemoryStore)
    Path(line.settings.database_url.removeprefix("sqlite:///")).write_bytes(line.store.dump())
    with patch("control.store._sqlite_engine", _in_file):
        line.store = StraightStore(line.settings.database_url)
    line.store.write_now(lambda c: operations.drop_claim(c, old))
    hire(line, Runtime(line.store, line.settings, HostPool(line.settings.drivers), new_id()))


async def round_(line: Line) -> bool:
    """Do one round of the dispatcher; what a flow left behind unended is given back, as the dispatcher does.

    Return whether there was anything to do.
    """
    claimed = await line.work()
    held = line.store.read_now(lambda c: operations.active_of(c, line.runtime.worker_id))
    if held:
        line.store.write_now(lambda c: operations.release(c, [op.id for op in held]))
    return bool(claimed or held)


async def retry_delay(line: Line) -> None:
    """Let the pause before the next try pass, and do two rounds; there is no second one when nothing is to be done."""
    skip(RETRY_S)
    if await round_(line):
        await round_(line)


async def reconcile(line: Line) -> None:
    """Compare record and world, and let the repairs run; an hour has passed for what lies in the image store."""
    line.submit(Verb.RECONCILE, {"hosts": []})
    with patch.object(tasks.images, "LEFT_FOR_S", -1.0):
        for _ in range(2):
            await round_(line)


def row_of(line: Line, instance_id: str) -> dict[str, Any]:
    """Return an instance's row of the record."""
    return line.store.read_now(lambda c: _row(c, instance_id))


def _row(c: sa.Connection, instance_id: str) -> dict[str, Any]:
    return dict(c.execute(_INSTANCE, {"id": instance_id}).mappings().one())


def host_names(line: Line) -> dict[str | None, str]:
    """Return id -> name of the hosts."""
    rows = line.store.read_now(lambda c: c.execute(_HOST_NAMES).all())
    return {row.id: row.live_name for row in rows}
