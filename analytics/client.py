"""Ask the history's owner over its socket. Blocking, with short deadlines: callers on an event loop use a thread."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from core.errors import RackflowError, Unreachable, from_dict

if TYPE_CHECKING:
    import pyarrow.flight as flight

_LONG_S = 300.0
_FIX = "see `rackflow status`; the supervisor starts it again"


class AnalyticsClient:
    """One connection, made when first used and made again when it broke. Every call may raise Unreachable."""

    def __init__(self, socket: Path | str, *, timeout_s: float = 2.0, query_timeout_s: float = 15.0) -> None:
        self._location = f"grpc+unix://{socket}"
        self._timeout_s = timeout_s
        self._query_timeout_s = query_timeout_s
        self._lock = threading.Lock()
        self._connection: flight.FlightClient | None = None
        self._features: dict[str, Any] = {}

    def put_usage(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send usage samples {at, host, instance_id, cpus, cpu_used, memory_mib, memory_used_mib, disk_…_mib}.

        They are taken, not yet on disk, when this returns. Raise Invalid, Unreachable.
        """
        if not rows:
            return
        import pyarrow.flight as flight

        from analytics.record import usage_table

        table = usage_table(rows)
        try:
            options = flight.FlightCallOptions(timeout=self._timeout_s)
            writer, _ = self._connect().do_put(flight.FlightDescriptor.for_path("usage"), table.schema, options)
            with writer:
                writer.write_table(table)
        except flight.FlightError as error:
            raise self._translate(error) from error

    def query(self, sql: str, *, limit: int = 1000) -> dict[str, Any]:
        """Run one SELECT; return {"columns", "types", "rows", "truncated", "duration_s"}. Raise Invalid, Busy."""
        return dict(self._call("query", {"sql": sql, "limit": limit}, timeout_s=self._query_timeout_s))

    def history(self, instance_id: str) -> dict[str, Any]:
        """Return the timeline of an instance, by id or by the name it bore last. Raise NotFound."""
        return dict(self._call("history", {"instance": instance_id}, timeout_s=self._query_timeout_s))

    def capacity(self) -> list[dict[str, Any]]:
        """Return measured capacity and use, one dict per host."""
        return list(self._call("capacity", {}))

    def features(self) -> dict[str, Any]:
        """Return {"version", "hosts": {name: {"cpu_used_ratio", …}}, …}: see analytics.learned.learned_features.

        It may be large: the owner sends it only when it is not the one that was sent last.
        """
        answer = self._call("features", {"known": self._features.get("version")})
        if answer.keys() != {"version"}:
            self._features = dict(answer)
        return self._features

    def eta(self, steps: Sequence[Mapping[str, Any]]) -> list[dict[str, float | None]]:
        """Return {"p50_s", "p95_s"} for each of some steps {verb, step, driver, host, image}; None: not known."""
        return list(self._call("eta", {"steps": list(steps)}))

    def outlook(self) -> list[dict[str, Any]]:
        """Return what clusters will be asked for and when they run out, one dict per cluster and resource."""
        return list(self._call("outlook", {}))

    def health(self, machine_id: str, sensor: str | None = None, *, limit: int = 100) -> dict[str, Any]:
        """Return what a machine's BMC told: {"sensors", "log"}, or of one sensor {"readings"}."""
        asked = {"machine_id": machine_id, "sensor": sensor, "limit": limit}
        return dict(self._call("health", asked, timeout_s=self._query_timeout_s))

    def usage(self) -> list[dict[str, Any]]:
        """Return the newest sample of each instance seen in the last hour, one dict each."""
        return list(self._call("usage", {}))

    def regressions(self) -> list[dict[str, Any]]:
        """Return which steps take longer on which host than they used to, and since when; the worst first."""
        return list(self._call("regressions", {}, timeout_s=self._query_timeout_s))

    def export(self, table: str, into: BinaryIO) -> int:
        """Write a recorded table as Parquet; return how many rows. Raise NotFound."""
        import pyarrow.flight as flight
        import pyarrow.parquet as parquet

        try:
            reader = self._connect().do_get(flight.Ticket(table), flight.FlightCallOptions(timeout=_LONG_S))
            rows = 0
            with parquet.ParquetWriter(into, reader.schema, compression="zstd") as writer:
                for chunk in reader:
                    writer.write_batch(chunk.data)
                    rows += chunk.data.num_rows
        except flight.FlightError as error:
            raise self._translate(error) from error
        return rows

    def backtest(self) -> list[dict[str, Any]]:
        """Judge all predictions by the past now; return error and baseline_error of each, and whether it beats."""
        return list(self._call("backtest", {}, timeout_s=_LONG_S))

    def flush(self) -> None:
        """Have everything written that waits: outbox rows and samples."""
        self._call("flush", {}, timeout_s=self._query_timeout_s)

    def status(self) -> dict[str, Any]:
        """Return how many rows each table holds, and the moment of the first sample of what clusters hold."""
        return dict(self._call("status", {}))

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _call(self, action: str, body: dict[str, Any], *, timeout_s: float = 0.0) -> Any:
        import pyarrow.flight as flight  # 60 MB and 0.1 s: only processes that ask pay for it

        options = flight.FlightCallOptions(timeout=timeout_s or self._timeout_s)
        try:
            results = list(self._connect().do_action(flight.Action(action, json.dumps(body).encode()), options))
        except flight.FlightError as error:
            raise self._translate(error) from error
        return json.loads(results[0].body.to_pybytes())

    def _connect(self) -> flight.FlightClient:
        import pyarrow.flight as flight

        with self._lock:
            if self._connection is None:
                self._connection = flight.connect(self._location)
            return self._connection

    def _translate(self, error: flight.FlightError) -> RackflowError:
        import pyarrow.flight as flight

        if error.extra_info:
            return from_dict(json.loads(error.extra_info))
        if isinstance(error, flight.FlightUnavailableError):
            with self._lock:  # gRPC waits longer and longer before it tries again; a new connection does so at once
                self._connection = None
        seen = {"socket": self._location, "flight": f"{type(error).__name__}: {error}"[:300]}
        return Unreachable("the history (analytics owner) does not answer", "analytics", seen, _FIX)
