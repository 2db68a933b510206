"""Process: the owner of the DuckDB file, with the pump that moves the outbox into it."""

from __future__ import annotations

import logging
import signal
import threading
import time
from datetime import timedelta

from analytics.owner import AnalyticsOwner, limit_process_memory
from control import allocation, outbox, rounds
from control.store import Store
from core.clock import now
from core.errors import RackflowError
from core.settings import Settings
from daemon import notify

log = logging.getLogger("rackflow.analytics")

_LOOK_S = 2.0  # between two looks at the outbox; whoever asks for history has it looked at before
_BATCH = 2000
_KEPT = timedelta(days=30)  # moved events stay that long in the state database, so that history can be rebuilt
_ROUNDS_KEPT = timedelta(days=7)  # of placement, to be replayed
_PURGE_EVERY_S = 3600.0
_SAMPLE_EVERY_S = 300.0


class Pump:
    """Moves outbox rows: insert by id (a repeat does nothing), then mark. Safe to be killed at any line."""

    def __init__(self, store: Store, owner: AnalyticsOwner | None = None) -> None:
        self._store = store
        self.owner = owner
        self._lock = threading.Lock()
        self._purged_at = 0.0

    def __call__(self) -> int:
        """Move everything that waits; return how many rows. Raise RackflowError."""
        assert self.owner is not None
        moved = 0
        with self._lock:
            while rows := self._store.read_now(lambda c: outbox.unmoved(c, _BATCH)):
                self.owner.insert_outbox(rows)
                ids = [int(row["id"]) for row in rows]
                self._store.write_now(lambda c, ids=ids: outbox.mark_moved(c, ids))  # type: ignore[misc]
                moved += len(rows)
        return moved

    def purge(self) -> None:
        """Take away old moved rows and old rounds of placement, once an hour."""
        if time.monotonic() - self._purged_at > _PURGE_EVERY_S:
            self._purged_at = time.monotonic()
            self._store.write_now(lambda c: outbox.purge(c, now() - _KEPT))
            self._store.write_now(lambda c: rounds.purge(c, now() - _ROUNDS_KEPT))


class Sampler:
    """Tells the history every few minutes what can be given away and what is."""

    def __init__(self, store: Store, owner: AnalyticsOwner) -> None:
        self._store = store
        self._owner = owner
        self._sampled_at = -_SAMPLE_EVERY_S

    def __call__(self) -> None:
        """Take samples if it is time. Raise RackflowError."""
        if time.monotonic() - self._sampled_at >= _SAMPLE_EVERY_S:
            self._sampled_at = time.monotonic()
            features = self._owner.features.get()
            self._owner.insert_allocation(self._store.read_now(lambda c: allocation.samples(c, features)))


def run(settings: Settings) -> None:
    """Own the history until SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    store = Store(settings.database_url)
    pump = Pump(store)
    pump.owner = owner = AnalyticsOwner(settings.paths.duckdb_file, settings.paths.analytics_socket, pump=pump)
    sample = Sampler(store, owner)
    owner.start()
    limit_process_memory()  # after what libraries map without using it
    notify.ready()
    try:
        while not stop.wait(_LOOK_S):
            try:
                pump()
                pump.purge()
                sample()
            except RackflowError as error:
                log.warning("nothing was moved or sampled: %s; the outbox stays where it is", error)
    finally:
        owner.close()
        store.close_now()
