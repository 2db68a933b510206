"""After a look at hosts: which of those that do not answer are dead, by two signals; an operation cuts their power."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from control import access, failover, fencing, hosts, requests
from control.failover import Verdict
from control.hosts import HostRecord
from core.clock import now
from core.errors import RackflowError
from core.states import MachinePower, Verb
from drivers.baremetal.base import BareMetal, BmcEndpoint
from drivers.bmcs import connect
from tasks.runtime import Runtime

RECONCILER = "reconciler"  # the identity that repairs act for
BMC_S = 10.0  # a BMC that takes longer to tell a power state does not answer


async def bmc_of(rt: Runtime, record: HostRecord) -> BareMetal | None:
    """Return the driver of a host's BMC; None: it has none. Raise Invalid, CredentialRejected."""
    spec: dict[str, Any] = record.spec.get("bmc") or {}
    if not spec:
        return None
    file = spec.get("password_file")
    endpoint = BmcEndpoint(
        record.name, spec["address"], spec.get("user", ""), Path(file) if file else None,
        verify_tls=spec.get("verify_tls", True), system_id=spec.get("system", ""),
    )  # fmt: skip
    return await connect(endpoint, rt.settings.drivers)


async def watch(rt: Runtime) -> None:
    """Decide about every host that did not answer its last look."""
    records = await rt.store.read(hosts.records)
    quiet = [record for record in records if failover.silent(record)]
    if not quiet:
        return
    labels = await rt.store.read(failover.cluster_labels)
    await asyncio.gather(*(_consider(rt, one, records, labels[one.cluster_id]) for one in quiet))


async def _consider(rt: Runtime, one: HostRecord, records: list[HostRecord], labels: dict[str, str]) -> None:
    limit_s = rt.settings.worker.host_silent_s

    def verdict(power: MachinePower | None) -> Verdict:
        return failover.decide(one.name, failover.signs_of(one, records, labels, power, now()), limit_s)

    found = verdict(MachinePower.UNKNOWN)  # as if its BMC answered: it is asked only when that would decide
    if found.fence:
        if await rt.store.read(lambda c: fencing.was_tried(c, one)):
            return
        found = verdict(await _power(rt, one))
    if not found.fence and not found.reason:
        return

    def write(c: Any) -> bool:
        if fencing.was_tried(c, one):
            return False
        if found.fence:
            who = access.named(c, RECONCILER, role=access.ADMIN)
            requests.submit(c, who, Verb.FENCE, {"hosts": [one.name]}, source=fencing.SOURCE)
        else:
            hosts.note_error(c, one.id, failover.explained(one.error or {}, found.reason, found.fix))
        return found.fence

    try:
        if await rt.store.write(write):
            rt.wake()
    except RackflowError as error:  # somebody is changing the host: the next look decides
        said = failover.explained(one.error or {}, str(error), error.fix)
        await rt.store.write(lambda c: hosts.note_error(c, one.id, said))


async def _power(rt: Runtime, record: HostRecord) -> MachinePower | None:
    """Return what its BMC says; None: nothing."""
    bmc = None
    try:
        async with asyncio.timeout(BMC_S):
            bmc = await bmc_of(rt, record)
            return await bmc.power() if bmc is not None else None
    except (RackflowError, TimeoutError):
        return None
    finally:
        if bmc is not None:
            await bmc.close()
