"""What the tasks of one process share: store, connections, history, and the worker's claim."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from analytics.client import AnalyticsClient
from control import operations
from control.gather import Gather
from control.hosts import HostRecord
from control.store import Store
from core.errors import Busy, RackflowError
from core.settings import Settings
from drivers.hosts import Host
from drivers.pool import HostPool
from drivers.transport.base import Endpoint, Way
from tasks import look_writes, step_writes
from tasks.bmc_slots import BmcSlots, service_of
from tasks.hostlock import HostLocks

T = TypeVar("T")
LANES = 4  # operations under way on a host, for each that may act there
CLAIM_MARGIN_S = 3.0  # no step begins when the claim has less left than this


class StepCancelled(Exception):
    """The action of a step was ended because its operation is not wanted any more."""


@dataclass
class Runtime:
    """One per worker process. active: what the flow runs of this process have in hand."""

    store: Store
    settings: Settings
    pool: HostPool
    worker_id: str
    analytics: AnalyticsClient | None = None
    active: dict[str, int] = field(default_factory=dict)  # operation id -> epoch of the flow run that has it
    claim_until: float = field(default_factory=lambda: time.monotonic() + 15.0)
    wake: Callable[[], None] = lambda: None
    cancelled: set[str] = field(default_factory=set)  # of active: those that somebody does not want any more
    troubled: set[str] = field(default_factory=set)  # hosts of which the record knows failures
    balanced: dict[str, float] = field(default_factory=dict)  # cluster -> when it was last looked at, monotonic
    spared: float = -1e9  # when spare machines were last looked at, monotonic
    watched: dict[str, float] = field(default_factory=dict)  # machine -> when its BMC was last looked at, monotonic
    logged: dict[str, set[tuple[str, str]]] = field(default_factory=dict)  # machine -> newest entries of its event log
    bmcs: dict[str, BmcSlots] = field(default_factory=dict)  # by the address of the service
    copied: set[tuple[str, str]] = field(default_factory=set)  # (host, sha256): copies that the record knows of
    _actions: defaultdict[str, set[asyncio.Task[Any]]] = field(default_factory=lambda: defaultdict(set))
    _cpu: dict[str, tuple[float, datetime]] = field(default_factory=dict)
    _slots: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    _lanes: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    _features: dict[str, Any] = field(default_factory=dict)
    _copying: defaultdict[tuple[str, str], asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def __post_init__(self) -> None:
        self.locks = HostLocks(self.worker_id)
        self.steps = Gather(lambda change: self.store.write(change), step_writes.write, lambda: len(self._actions))
        self.befores = Gather(lambda look: self.store.read(look), look_writes.before)
        self.looks = Gather(lambda change: self.store.write(change), look_writes.write)
        self.usage = Gather(lambda put: asyncio.to_thread(put, None), self._put_usage)

    def _put_usage(self, _: Any, samples: Sequence[Sequence[dict[str, Any]]]) -> list[None]:
        """Send the usage samples of some hosts to the history's owner. Raise Unreachable, Invalid."""
        if self.analytics is not None:
            self.analytics.put_usage([row for of_host in samples for row in of_host])
        return [None] * len(samples)

    def require_claim(self) -> None:
        """Raise Busy when the claim is about to end: somebody else may hold these operations soon."""
        if self.claim_until - time.monotonic() < CLAIM_MARGIN_S:
            raise Busy("this worker's claim could not be renewed in time", subject=f"worker/{self.worker_id}")

    def leave(self, epochs: Mapping[str, int]) -> None:
        """End a flow run's part in operations; one that a later run has taken up is that one's."""
        for one, epoch in epochs.items():
            if self.active.get(one) == epoch:
                del self.active[one]
                self.cancelled.discard(one)

    async def cancellable(self, operation_id: str, action: Coroutine[Any, Any, T]) -> T:
        """Run a step's action so that `look_for_cancels` can end it, and what it runs. Raise StepCancelled."""
        task = asyncio.ensure_future(action)
        mine = self._actions[operation_id]
        mine.add(task)
        try:
            return await task
        except asyncio.CancelledError as error:
            current = asyncio.current_task()
            if operation_id in self.cancelled and not (current and current.cancelling()):
                raise StepCancelled from error
            raise
        finally:
            mine.discard(task)
            if not mine:
                self._actions.pop(operation_id, None)

    async def look_for_cancels(self) -> None:
        """End the steps of those active operations that are not wanted any more."""
        self.cancelled &= self.active.keys()
        asked = list(self.active.keys() - self.cancelled)
        if not asked:
            return
        for one in await self.store.read(lambda c: operations.cancel_wanted(c, asked)):
            self.cancelled.add(one)
            for task in list(self._actions.get(one, ())):
                task.cancel()

    def slots(self, host: str) -> asyncio.Semaphore:
        """Return the semaphore that bounds what is done on a host at a time."""
        return self._slots.setdefault(host, asyncio.Semaphore(self.settings.worker.instances_per_host))

    def lanes(self, host: str) -> asyncio.Semaphore:
        """Return the semaphore that bounds operations under way on a host: while some act, others write the record."""
        return self._lanes.setdefault(host, asyncio.Semaphore(LANES * self.settings.worker.instances_per_host))

    def bmc_slots(self, address: str) -> BmcSlots:
        """Return what bounds how many machines are spoken to through one BMC."""
        return self.bmcs.setdefault(service_of(address), BmcSlots())

    def copying(self, place: str, sha256: str) -> asyncio.Lock:
        """Return the lock that lets one copy of an image to a host, or to a datastore, run at a time."""
        return self._copying[(place, sha256)]

    def endpoint(self, host: HostRecord) -> Endpoint:
        """Return how to reach a host of the record."""
        return endpoint_of(host, self.settings)

    async def host(self, record: HostRecord) -> Host:
        """Return a host's drivers, connected, with this worker's lock held on the host. Raise Unreachable, Busy."""
        host = await self.pool.get(record.driver, self.endpoint(record))
        await self.locks.hold(record.name, host.transport, self.is_alive)
        return host

    async def is_alive(self, worker_id: str) -> bool:
        """Say whether another worker's claim still stands; one of another rackflow is none of our business."""
        return await self.store.read(lambda c: operations.claim_stands(c, worker_id))

    def cpu_used(self, name: str, cpu_seconds: float | None, at: datetime) -> float | None:
        """Return the cores used since the last look; None the first time and after a restart of the instance."""
        before = self._cpu.get(name)
        if cpu_seconds is None:
            return None
        self._cpu[name] = (cpu_seconds, at)
        if before is None or cpu_seconds < before[0] or at <= before[1]:
            return None
        return (cpu_seconds - before[0]) / (at - before[1]).total_seconds()

    async def features(self) -> dict[str, Any]:
        """Return measured figures for placement; the last known ones when the owner does not answer in time."""
        if self.analytics is not None:
            with suppress(RackflowError, TimeoutError):  # placement goes on with what it had
                self._features = await asyncio.wait_for(asyncio.to_thread(self.analytics.features), 0.5)
        return self._features


def endpoint_of(host: HostRecord, settings: Settings) -> Endpoint:
    """Return how to reach a host of the record; without a key of its own by rackflow's."""
    key = Path(host.key_file) if host.key_file else settings.paths.ssh_key
    way = Way.of(host.spec, host.address, settings.paths.ssh_key)
    return Endpoint(host.name, host.address, host.port, host.user, key, host.host_key, host.place, way)


_current: Runtime | None = None


def set_runtime(value: Runtime | None) -> None:
    """Set the process-wide runtime (the worker does it at start, tests as well)."""
    global _current
    _current = value


def runtime() -> Runtime:
    """Return the process-wide runtime. Raise RackflowError outside a worker."""
    if _current is None:
        raise RackflowError("no rackflow worker runs in this process", fix="start it with: rackflow up")
    return _current
