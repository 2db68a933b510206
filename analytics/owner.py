"""The one process that has the DuckDB file open: Arrow Flight over a unix socket (gRPC, HTTP/2).

put "usage": samples, kept in memory for flush_s and written together (they may be lost in a crash). action NAME with a
JSON body: what `_Server` lists, each a method of the client. Outbox rows come by `insert_outbox`, from the pump that
runs in the same process. A unix socket because nobody but this machine's rackflow user may ask.
"""

from __future__ import annotations

import json
import logging
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.flight as flight

from analytics.backtest import backtest
from analytics.capacity import Features, capacity, instance_usage
from analytics.database import Database, Limits, rows_of
from analytics.durations import eta
from analytics.export import columns, stream
from analytics.forecast import outlook
from analytics.learn import learn_all
from analytics.lifecycle import history
from analytics.machines import health
from analytics.query import Queries, to_json
from analytics.record import USAGE, insert_allocation, insert_outbox, insert_usage
from analytics.regressions import regressions
from analytics.retention import RECORDED, roll_up
from core.clock import now
from core.errors import HostFault, Invalid, RackflowError

log = logging.getLogger("rackflow.analytics")

BUFFER_ROWS = 20_000
UPKEEP_S = 60.0
LEARN_S = 300.0
JUDGE_S = 3600.0
_SAMPLED_SINCE = "SELECT min(sampled_at) AS since FROM allocation WHERE noun = 'cluster'"
LEARN_RATIO = 0.02  # of the time at most: a large cloud learns less often


def limit_process_memory(more_mib: int = 1024) -> None:
    """Let the kernel refuse this process more private memory than it has mapped now plus more_mib.

    DuckDB's memory_limit does not count what scalar functions build; with this, such a query fails (bad allocation)
    and the process lives on. Call it in the owner's own process only, once the owner is there. Relative, since
    Arrow's allocator and the stacks of threads map more than a GiB without using it.
    """
    pa.array([1])
    status = Path("/proc/self/status").read_text().splitlines()
    mapped_kib = next(int(line.split()[1]) for line in status if line.startswith("VmData:"))
    limit = mapped_kib * 1024 + more_mib * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


class AnalyticsOwner:
    """The open history and its server. pump: moves what waits in the outbox, so that answers hold the newest events."""

    def __init__(
        self, path: Path, socket: Path, *, limits: Limits | None = None, flush_s: float = 2.0,
        pump: Callable[[], object] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.database = Database(path, self.limits)
        self.features = Features(self.database)
        self.queries = Queries(self.database, self.limits)
        self._pump = pump
        self._flush_s = flush_s
        self._buffer: list[pa.Table] = []
        self._buffered = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._learning = threading.Lock()
        self._socket = socket
        self._written = False
        self._upkeep = threading.Thread(target=self._upkeep_loop, name="analytics-upkeep", daemon=True)
        self._flusher = threading.Thread(target=self._flush_loop, name="analytics-flush", daemon=True)
        socket.parent.mkdir(parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
        self._server = _Server(self, f"grpc+unix://{socket}")
        socket.chmod(0o600)

    def start(self) -> None:
        """Begin writing buffered samples and keeping the file in order; the server answers already."""
        self._upkeep.start()
        self._flusher.start()

    def close(self) -> None:
        """Answer no more, write what is buffered, checkpoint and give the file free."""
        self._stop.set()
        self._buffered.set()
        self.queries.interrupt()
        self._server.shutdown()  # waits for answers under way
        for thread in (self._upkeep, self._flusher):
            if thread.is_alive():
                thread.join(timeout=10)
        self._flush_samples()
        self.database.close()
        self._socket.unlink(missing_ok=True)

    def insert_outbox(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Insert outbox rows {id, at, kind, subject, payload}, each id once; return how many were new."""
        new = insert_outbox(self.database, rows)
        self._written = self._written or new > 0
        return new

    def insert_allocation(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert samples {noun, name, host, cluster, resource, total, used} of the present moment."""
        at = now()
        insert_allocation(self.database, [{**row, "sampled_at": at} for row in rows])
        self._written = True

    def add_usage(self, table: pa.Table) -> None:
        """Take usage samples; they are written within flush_s, or at once when many wait."""
        with self._lock:
            self._buffer.append(table.select(USAGE.names).cast(USAGE))
            full = sum(part.num_rows for part in self._buffer) > BUFFER_ROWS
        self._buffered.set()
        if full:
            self._flush_samples()

    def flush(self) -> None:
        """Write everything that waits: outbox rows and buffered samples."""
        if self._pump is not None:
            try:
                self._pump()
            except RackflowError as error:  # the answer will lack the newest events, which is better than none
                log.warning("the outbox could not be read: %s", error)
        self._flush_samples()

    def learn(self, *, judge: bool) -> list[dict[str, Any]]:
        """Work predictions out anew, and judge them by the past if asked for: return what came of that."""
        with self._learning:
            at = now()
            learn_all(self.database, at)
            judged = backtest(self.database, at) if judge else []
            self.features.learned()
            return judged

    def status(self) -> dict[str, Any]:
        """Return how many rows each table holds, and the moment of the first sample of what clusters hold."""
        with self.database.read() as cursor:
            counts = {}
            for table in RECORDED:
                cursor.execute(f"SELECT count(*) FROM {table}")
                counts[table] = cursor.fetchall()[0][0]
            since = rows_of(cursor, _SAMPLED_SINCE)[0]["since"]
        return {"rows": counts, "duckdb": duckdb.__version__, "sampled_since": to_json(since)}

    def _flush_samples(self) -> None:
        with self._lock:
            waiting, self._buffer = self._buffer, []
        if waiting:
            insert_usage(self.database, pa.concat_tables(waiting))
            self.features.touch()
            self._written = True

    def _flush_loop(self) -> None:
        while not self._stop.is_set():
            self._buffered.wait()
            self._stop.wait(self._flush_s)
            self._buffered.clear()
            _guarded("writing samples", self._flush_samples)

    def _upkeep_loop(self) -> None:
        rolled_up = _Turn(3600.0)
        learned, judged = _Turn(LEARN_S), _Turn(JUDGE_S)
        while not self._stop.wait(UPKEEP_S):
            if rolled_up.is_due():
                _guarded("rolling up samples", lambda: roll_up(self.database, now(), self.limits.keep_days))
            if learned.is_due():
                begun = time.monotonic()
                _guarded("learning", lambda: self.learn(judge=judged.is_due()))
                learned.rest((time.monotonic() - begun) / LEARN_RATIO)
            if self._written:
                self._written = False
                _guarded("a checkpoint", self.database.checkpoint)


class _Turn:
    """Says whether it is time again, first at once."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._next = -float("inf")

    def is_due(self) -> bool:
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + self._every_s
        return True

    def rest(self, seconds: float) -> None:
        """Let it be due no sooner than in so many seconds."""
        self._next = max(self._next, time.monotonic() + seconds)


def _guarded(what: str, work: Callable[[], object]) -> None:
    try:
        work()
    except Exception:
        log.exception("%s failed; it will be tried again", what)


class _Server(flight.FlightServerBase):  # type: ignore[misc]
    """Flight's side: bytes in, bytes out, our errors as JSON in extra_info."""

    def __init__(self, owner: AnalyticsOwner, location: str) -> None:
        super().__init__(location)
        self._actions: dict[str, Callable[[dict[str, Any]], Any]] = {
            "query": lambda body: self._fresh(owner).queries.run(str(body["sql"]), int(body.get("limit", 1000))),
            "history": lambda body: history(self._fresh(owner).database, str(body["instance"])),
            "capacity": lambda _: capacity(self._fresh(owner).database),
            "features": lambda body: owner.features.get(body.get("known")),
            "eta": lambda body: eta(owner.database, body["steps"]),
            "outlook": lambda _: outlook(owner.database),
            "health": lambda body: health(
                self._fresh(owner).database, body["machine_id"], body.get("sensor"), int(body["limit"])
            ),
            "usage": lambda _: instance_usage(self._fresh(owner).database),
            "regressions": lambda _: regressions(self._fresh(owner).database, now()),
            "backtest": lambda _: self._fresh(owner).learn(judge=True),
            "status": lambda _: self._fresh(owner).status(),
            "flush": lambda _: owner.flush(),
        }
        self._owner = owner

    @staticmethod
    def _fresh(owner: AnalyticsOwner) -> AnalyticsOwner:
        owner.flush()
        return owner

    def do_put(self, _context: Any, descriptor: Any, reader: Any, _writer: Any) -> None:
        if descriptor.path != [b"usage"]:
            raise _flight_error(Invalid(f"there is nothing to put into {descriptor.path}", "analytics"))
        with _translated():
            self._owner.add_usage(reader.read_all())

    def do_action(self, _context: Any, action: Any) -> Iterator[bytes]:
        with _translated():
            run = self._actions.get(action.type)
            if run is None:
                raise Invalid(f"there is no action {action.type}", "analytics", {"actions": sorted(self._actions)})
            yield json.dumps(run(json.loads(action.body.to_pybytes() or b"{}"))).encode()

    def do_get(self, _context: Any, ticket: Any) -> flight.GeneratorStream:
        """Stream a table that is recorded, as it is now."""
        with _translated():
            table = ticket.ticket.decode()
            database = self._fresh(self._owner).database
            return flight.GeneratorStream(columns(database, table), stream(database, table))

    def list_actions(self, _context: Any) -> list[tuple[str, str]]:
        return [(name, "") for name in self._actions]


class _translated:
    """Turn what is raised inside into a Flight error that carries our JSON."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if error is None or isinstance(error, GeneratorExit):
            return
        if isinstance(error, RackflowError):
            raise _flight_error(error) from error
        if isinstance(error, KeyError | TypeError | ValueError | pa.ArrowException):
            raise _flight_error(Invalid(f"not understood: {error!r}", "analytics")) from error
        log.exception("a request to the history failed", exc_info=error)
        raise _flight_error(HostFault(f"the history failed: {error}", "analytics")) from error


def _flight_error(error: RackflowError) -> flight.FlightServerError:
    return flight.FlightServerError(error.message, extra_info=json.dumps(error.to_dict(), default=str).encode())
