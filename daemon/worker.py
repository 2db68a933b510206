"""Process: the worker. Claims operations, runs their flows in this process, holds all SSH connections.

The event loop runs in a thread of its own. Prefect's engine replaces the handler of SIGTERM while a flow runs (it would
raise into whatever the loop is doing), which it can do in the main thread only; so the main thread keeps the signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any
from uuid import UUID

import httpx
from prefect.automations import Automation
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.exceptions import PrefectException

from analytics.client import AnalyticsClient
from control import access, operations
from control.placement.weights import check_policy
from control.store import Store
from core.errors import RackflowError
from core.ids import new_id
from core.settings import Settings
from daemon import deployments, lock, logs, notify, run_events, timetable, wake
from daemon.dispatcher import Dispatcher
from daemon.files import write_private
from daemon.flow_engine import adapted
from daemon.flow_table import FLOWS, FlowEntry
from daemon.prefect_worker import InProcessWorker
from drivers.pool import HostPool
from tasks.ledger import PREFECT_IDENTITY
from tasks.runtime import Runtime, set_runtime

log = logging.getLogger("rackflow.worker")
CANCELS_EVERY_S = 1.0


def run(settings: Settings, entries: Sequence[FlowEntry] = FLOWS) -> None:
    """Work until SIGTERM; then let running flows end, give back what is left, and end for certain."""
    check_policy(settings.placement_policy)
    logs.configure()  # again: importing Prefect has replaced the handlers
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    worker = WorkerProcess(settings, entries, stop)
    failed: list[BaseException] = []

    def loop() -> None:
        try:
            asyncio.run(worker.main())
        except BaseException as error:
            log.exception("the worker failed")
            failed.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=loop, name="worker")
    thread.start()
    stop.wait()
    thread.join(settings.worker.stop_s + 8.0)
    logging.shutdown()
    os._exit(1 if failed or worker.broken else 0)  # Prefect's own threads may wait for its server for minutes


class WorkerProcess:
    """What lives in the worker process, and in which order it begins and ends. stop: set when it is to end.

    broken: a part of it was over that had to last.
    """

    def __init__(self, settings: Settings, entries: Sequence[FlowEntry], stop: threading.Event) -> None:
        self.settings = settings
        self.broken = False
        self._entries = entries
        self._stop = stop
        self._background: list[asyncio.Task[Any]] = []

    async def main(self) -> None:
        """Begin, work, end."""
        settings = self.settings
        self._lock = lock.hold(settings.paths.run_dir / "worker.lock", "the claim on this front-end's operations")
        self.store = Store(settings.database_url)
        self.pool = HostPool(settings.drivers)
        self.runtime = Runtime(
            self.store, settings, self.pool, new_id(), AnalyticsClient(settings.paths.analytics_socket)
        )
        set_runtime(self.runtime)
        await self._take_over()
        self.keep("renewing the claim", self._renew())
        try:
            await _until_answered(settings)
            self.worker = InProcessWorker(settings.work_pool, name=f"rackflow-{socket.gethostname()}")
            async with AsyncClientContext(), self.worker:  # one client for all runs: a new one costs 60 ms
                with SyncClientContext():
                    await self._begin()
                await asyncio.to_thread(self._stop.wait)
                log.info("stopping: running flows get %.0f s", settings.worker.stop_s)
                await self._end()
        finally:
            await self.store.write(lambda c: operations.drop_claim(c, self.runtime.worker_id))
            await self.pool.close()
            await self.store.close()

    async def _begin(self) -> None:
        settings, worker = self.settings, self.worker
        every_s = settings.reconcile_every_s
        ids = await deployments.register(self._entries, settings.work_pool, every_s)
        worker.flows = {ids[entry.name]: adapted(deployments.load_flow(entry)) for entry in self._entries}
        if ended := await worker.end_orphans():
            log.warning("%d flow runs of a worker that died were marked as crashed", ended)
        self.dispatcher = Dispatcher(self.store, self.runtime, worker, ids, settings.worker.look_s)
        self.runtime.wake = self.dispatcher.wake
        self._listen_for_wakes()
        query_s = float(os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "5"))
        self._dispatching = self.keep("dispatching", self.dispatcher.run())
        self._polling = self.keep("polling", worker.poll(query_s))
        self.keep("looking for cancels", self._end_what_is_not_wanted())
        self.keep("the timetable", timetable.run(self.store, self.dispatcher.wake))
        self.keep("the heartbeat", worker.keep_registered(worker.heartbeat_interval_seconds))
        self.keep("listening", run_events.listen(worker.poke, lambda run_id: self.do(self._cancel(run_id))))
        self.do(_ensure_automation(deployments.zombies()))
        self.dispatcher.wake()
        worker.poke()
        notify.ready()

    async def _end(self) -> None:
        """Take no more work, let flows end, then stop everything else; the claim is renewed until the last."""
        for task in (self._dispatching, self._polling):
            task.cancel()
        await self.worker.stop_runs(self.settings.worker.stop_s)
        for task in self._background:
            task.cancel()

    async def _take_over(self) -> None:
        """Hold a claim of our own; drop that of our predecessor, whose process is dead (the supervisor sees to it)."""
        file = self.settings.paths.run_dir / "worker.id"
        with contextlib.suppress(FileNotFoundError):
            before = file.read_text().strip()
            await self.store.write(lambda c: operations.drop_claim(c, before))
        write_private(file, self.runtime.worker_id + "\n")
        await self._renew_once()

    async def _renew_once(self) -> None:
        asked, limits = time.monotonic(), self.settings.worker
        label = f"{socket.gethostname()}:{os.getpid()}"
        held = await self.store.write(
            lambda c: operations.renew_claim(c, self.runtime.worker_id, label, limits.claim_s)
        )
        self.runtime.claim_until = asked + limits.claim_s
        if not held:
            log.warning("the claim had run out before it was renewed")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.settings.worker.renew_s)
            try:
                await self._renew_once()
            except RackflowError as error:
                log.warning("the claim could not be renewed: %s", error)

    async def _end_what_is_not_wanted(self) -> None:
        """Look every second whether somebody cancelled what runs here; the remote command under way ends too."""
        while True:
            await asyncio.sleep(CANCELS_EVERY_S)
            try:
                await self.runtime.look_for_cancels()
            except RackflowError as error:
                log.warning("cancelled operations could not be looked for: %s", error)

    async def _cancel(self, flow_run_id: UUID) -> None:
        """Somebody cancelled a run in Prefect: ask its operations to end; their flow then undoes what was done."""
        ids = [
            operation.id
            for operation in await self.store.read(lambda c: operations.active_of(c, self.runtime.worker_id))
            if operation.flow_run_id == str(flow_run_id)
        ]
        for one in ids:
            log.info("flow run %s is being cancelled: so is operation %s", flow_run_id, one)
            await self.store.write(
                lambda c, one=one: operations.cancel(c, access.named(c, PREFECT_IDENTITY), one)  # type: ignore[misc]
            )

    def _listen_for_wakes(self) -> None:
        receiver = wake.listen(self.settings.paths.wake_socket)

        def woken() -> None:
            wake.drain(receiver)
            self.dispatcher.wake()

        asyncio.get_running_loop().add_reader(receiver, woken)

    def do(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something once beside the rest; that it failed is logged."""
        task = asyncio.create_task(work)
        self._background.append(task)
        task.add_done_callback(_report)
        return task

    def keep(self, part: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let a part of the worker go on until the worker ends; if it is over before, the worker ends with it."""
        task = self.do(work)
        task.add_done_callback(lambda _: self._over(part))
        return task

    def _over(self, part: str) -> None:
        if not self._stop.is_set():
            log.critical("%s is over: the worker ends, to be started anew", part)
            self.broken = True
            self._stop.set()


def _report(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("a part of the worker broke", exc_info=error)


async def _until_answered(settings: Settings) -> None:
    """Wait until Prefect's server accepts connections."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(settings.api_host, settings.prefect_port)
            return writer.close()
        await asyncio.sleep(0.1)


async def _ensure_automation(wanted: Automation) -> None:
    try:
        found = await Automation.aread(name=str(wanted.name))
        if found.trigger == wanted.trigger:
            return
        await found.adelete()
    except ValueError:  # "Automation with name … not found"
        pass
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("the automation for dead runs could not be looked at: %s", error)
        return
    await wanted.acreate()
