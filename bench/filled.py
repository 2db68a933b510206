"""Fill a rackflow that is down: hosts and instances are written into its state database, as if they had been made.

Hosts are like one that was enrolled. Instances are asked for, claimed, placed and ended by the code that does so in a
rackflow that is up; only their steps are left out. A file tells the simulated hosts what runs on them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from control import access, images, instances, operations, placing, requests, tables
from control.store import Store
from core.ids import new_id
from core.states import CopyState, InstanceState, OperationState, Verb

ASKED = 2000  # in one request
LIKE, IMAGE = "s0", "box"  # the host that the others are like; what the instances are made from
_FOR_HOST = (tables.datastore_host, tables.network_host)


def fill(database: Path, into: Path, hosts: int, instances_: int, spec: dict[str, Any]) -> None:
    """Bring a state database to that many hosts and instances. into: file for the simulated hosts."""
    store = Store(f"sqlite:///{database}")
    try:
        store.write_now(lambda c: _add_hosts(c, hosts))
        for first in range(0, instances_, ASKED):
            wanted = {**spec, "image": IMAGE, "name": f"there-{first}", "count": min(ASKED, instances_ - first)}
            store.write_now(lambda c, wanted=wanted: _deploy(c, wanted))  # type: ignore[misc]
        into.write_text(json.dumps(store.read_now(_planted)))
    finally:
        store.close_now()


def _add_hosts(c: sa.Connection, wanted: int) -> None:
    h = tables.host
    like = dict(c.execute(sa.select(h).where(h.c.live_name == LIKE)).mappings().one())
    del like["mark"]  # each has its own
    there = c.scalar(sa.select(sa.func.count()).select_from(h).where(h.c.live_name.is_not(None))) or 0
    names = {new_id(): f"s{n}" for n in range(there, wanted)}
    if not names:
        return
    c.execute(sa.insert(h), [
        {**like, "id": row_id, "name": name, "live_name": name, "address": f"10.99.{n // 250}.{n % 250 + 1}"}
        for n, (row_id, name) in enumerate(names.items(), there)
    ])  # fmt: skip
    for table in _FOR_HOST:
        rows = [dict(row) for row in c.execute(sa.select(table).where(table.c.host_id == like["id"])).mappings()]
        c.execute(sa.insert(table), [{**row, "host_id": row_id} for row in rows for row_id in names])
    d = tables.datastore_host
    store_id = c.scalar(sa.select(d.c.datastore_id).where(d.c.host_id == like["id"]))
    image = images.get(c, IMAGE)
    for row_id in names:
        images.record_copy(c, image.sha256, row_id, str(store_id), CopyState.READY, image.size_bytes)


def _deploy(c: sa.Connection, wanted: dict[str, Any]) -> None:
    """Raise RuntimeError when one is not placed."""
    worker = new_id()
    operations.renew_claim(c, worker, "bench", 60)
    requests.submit(c, access.find(c, "admin"), Verb.DEPLOY, {"instances": [wanted]}, source="bench")
    ops = operations.claim_pending(c, worker, limit=ASKED)
    outcomes = placing.place(c, ops)
    if bad := [one.error for one in outcomes if one.error]:
        raise RuntimeError(f"{len(bad)} were not placed: {bad[0]}")
    states = [InstanceState.STAGING, InstanceState.STARTING, InstanceState.RUNNING]
    for state in states:
        instances.set_states(c, [(op.subject_id, state, op.epoch, "") for op in ops])
    operations.finish_all(c, [(op, OperationState.DONE, None) for op in ops])


def _planted(c: sa.Connection) -> dict[str, Any]:
    i, h = tables.instance, tables.host
    rows: Sequence[Any] = c.execute(
        sa.select(h.c.name, i.c.id, i.c.kind, i.c.cpu, i.c.memory_mib).where(i.c.host_id == h.c.id)
    ).all()
    on: dict[str, list[list[Any]]] = defaultdict(list)
    for name, *instance in rows:
        on[name].append(instance)
    image = images.get(c, IMAGE)
    return {"images": {image.sha256: image.size_bytes}, "hosts": on}
