"""The door to the state database: changes and reads run as functions of a connection, never across an await.

SQLite: one writer thread with group commit (group_commit.py), readers beside it. PostgreSQL and MySQL/MariaDB: a small
thread pool, one READ COMMITTED transaction per function; what loses a race (deadlock, serialization, a unique key that
another writer took between our look and our write) is rolled back and run again, so that it sees what the other did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa
import tenacity
from alembic import command
from alembic.config import Config
from sqlalchemy import event

from control.group_commit import GroupWriter
from control.sql import LostRace
from control.turns import Turns
from core.errors import Busy, Conflict, HostFault, Invalid, RackflowError, Unreachable

T = TypeVar("T")
Change = Callable[[sa.Connection], T]

_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
_JSON: dict[str, Any] = {
    "json_serializer": lambda value: orjson.dumps(value).decode(), "json_deserializer": orjson.loads,
}  # fmt: skip
_RACES = {"40001", "40P01", "55P03", 1020, 1205, 1213}  # SQLSTATE of PostgreSQL; error numbers of MySQL and MariaDB
_THREADS = 6
_PAGES_KIB = 16 * 1024  # of SQLite's writer: a page that a large transaction changes often is written once
_MIGRATIONS = Path(__file__).parent / "migrations"


def _code(error: BaseException) -> object:
    orig = getattr(error, "orig", None)
    return getattr(orig, "sqlstate", None) or next(iter(getattr(orig, "args", ())), None)


def _lost_race(error: BaseException) -> bool:
    return isinstance(error, sa.exc.IntegrityError | LostRace) or (
        isinstance(error, sa.exc.DBAPIError) and _code(error) in _RACES
    )


_AGAIN = tenacity.Retrying(  # for all threads: it keeps what it counts apart for each
    retry=tenacity.retry_if_exception(_lost_race), stop=tenacity.stop_after_attempt(10),
    wait=tenacity.wait_random_exponential(multiplier=0.01, max=0.5), reraise=True,
)  # fmt: skip


def translate(error: Exception) -> Exception:
    """Return one of our errors for an exception of the database; a bug stays what it is."""
    if isinstance(error, RackflowError) or not isinstance(error, sa.exc.DBAPIError):
        return error
    seen = {"database": str(error.orig)[:500]}
    text = str(error.orig).lower()
    if "is full" in text or "no space" in text or "readonly" in text:
        found: RackflowError = HostFault(
            f"the state database cannot be written: {error.orig}", "database", seen, "free disk space"
        )
    elif isinstance(error, sa.exc.IntegrityError):
        found = Conflict("the change clashes with another one that was made meanwhile", "database", seen, "look again")
    elif "locked" in text or _lost_race(error):
        found = Busy("the state database is busy with other writers", "database", seen, "try again")
    elif isinstance(error, sa.exc.DataError):
        found = Invalid("a value does not fit into the state database", "database", seen)
    elif isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        found = Unreachable("the state database does not answer", "database", seen, "see whether it runs")
    else:
        return error
    found.__cause__ = error
    return found


def _sqlite_engine(url: sa.URL, *, writer: bool) -> sa.Engine:
    engine = sa.create_engine(
        url, connect_args={"timeout": 30, "check_same_thread": False}, pool_size=1 if writer else _THREADS, **_JSON
    )

    @event.listens_for(engine, "connect")
    def _connect(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # sqlite3 must not begin transactions of its own
        role = ("query_only=OFF", f"cache_size=-{_PAGES_KIB}") if writer else ("query_only=ON",)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON", *role):
            raw.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(c: sa.Connection) -> None:
        c.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    return engine


class Store:
    """The state database. url as SQLAlchemy's: sqlite:///PATH, postgresql://…, mysql://…, mariadb://…"""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="rackflow-store")
        self._writer: GroupWriter | None = None
        if parsed.get_backend_name() == "sqlite":
            turns = None
            if parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
                turns = Turns(Path(parsed.database))
            self._write_engine = _sqlite_engine(parsed, writer=True)
            self._read_engine = _sqlite_engine(parsed, writer=False)
            self._writer = GroupWriter(self._write_engine, translate, turns)
        else:
            self._write_engine = self._read_engine = sa.create_engine(
                parsed, isolation_level="READ COMMITTED", pool_size=_THREADS, max_overflow=2, pool_pre_ping=True,
                **_JSON,
            )

    @property
    def backend(self) -> str:
        """Return sqlite, postgresql, mysql or mariadb."""
        return self._write_engine.dialect.name

    async def write(self, change: Change[T]) -> T:
        """Run a change in a transaction; all of it or nothing. Raise what it raises, Conflict, Busy, Unreachable."""
        return await asyncio.wrap_future(self._submit(change))

    async def read(self, look: Change[T]) -> T:
        """Run a function that only reads. Raise what it raises, Unreachable."""
        return await asyncio.wrap_future(self._pool.submit(self._read, look))

    def write_now(self, change: Change[T]) -> T:
        """Do as `write`, for callers outside an event loop."""
        return self._submit(change).result()

    def read_now(self, look: Change[T]) -> T:
        """Do as `read`, for callers outside an event loop."""
        return self._read(look)

    def migrate(self, revision: str = "head") -> None:
        """Bring the tables to a revision ("base" takes them all away)."""
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        step = command.downgrade if revision == "base" else command.upgrade
        try:
            with self._write_engine.begin() as c:
                config.attributes["connection"] = c
                step(config, revision)
        except sa.exc.DBAPIError as error:
            raise translate(error) from error

    async def close(self) -> None:
        """Finish what is queued and close all connections."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """Do as `close`, for callers outside an event loop."""
        if self._writer is not None:
            self._writer.close()
        self._pool.shutdown(wait=True)
        self._write_engine.dispose()
        self._read_engine.dispose()

    def _submit(self, change: Change[T]) -> Future[T]:
        if self._writer is not None:
            return self._writer.submit(change)
        return self._pool.submit(self._write, change)

    def _write(self, change: Change[T]) -> T:
        def once() -> T:
            with self._write_engine.begin() as c:
                return change(c)

        try:
            return _AGAIN(once)
        except sa.exc.DBAPIError as error:
            raise translate(error) from error

    def _read(self, look: Change[T]) -> T:
        try:
            with self._read_engine.begin() as c:
                return look(c)
        except sa.exc.DBAPIError as error:
            raise translate(error) from error
