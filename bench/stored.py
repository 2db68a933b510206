"""Placing from the state database and back into it, on SQLite: part of `scripts/bench placement`.

2,500 hosts of three sizes in four clusters, two datastores, three networks; what is asked for is by 20 templates and 15
flavours, as in synthetic.py. Measured is all that placing does: read operations, specs and the cloud, choose, write
decisions, reservations, leases, and commit.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from bench.synthetic import CLUSTERS, FLAVOURS, GIB, HOST_CPUS, HOST_GIB, NETS, SEED, STORES, TEMPLATES
from blueprints.cluster import ClusterSpec
from blueprints.datastore import DatastoreSpec
from blueprints.network import NetworkSpec
from control import access, clusters, datastores, networks, operations, placing, requests, sql, tables
from control.seed import seed
from control.store import Store
from core.clock import now
from core.ids import new_id
from core.states import HostState, ImageState, Verb

HOSTS, PENDING, ONE = 2500, 20_000, 5
ASKED = 2000  # in one request
KEY = "20k_stored_cpu_ms"


@dataclass(frozen=True)
class Cloud:
    """A store with hosts, and who asks and places there."""

    store: Store
    admin: access.Principal
    worker: str

    def ask(self, specs: list[dict[str, Any]]) -> list[str]:
        """Enter instances into the ledger and claim their operations; return the operations' ids."""
        for first in range(0, len(specs), ASKED):
            body = {"instances": specs[first : first + ASKED]}
            self.store.write_now(
                lambda c, body=body: requests.submit(c, self.admin, Verb.DEPLOY, body, source="bench")  # type: ignore[misc]
            )
        taken = self.store.write_now(lambda c: operations.claim_pending(c, self.worker, limit=len(specs)))
        return [op.id for op in taken]

    def place(self, ids: list[str]) -> float:
        """Place operations; return the CPU seconds. Raise RuntimeError unless all were placed.

        They are read in the transaction that places, so nobody can have taken them over meanwhile.
        """
        before = time.process_time()
        outcomes = self.store.write_now(lambda c: placing.place(c, operations.get(c, ids), looked=True))
        used = time.process_time() - before
        if bad := [outcome.error for outcome in outcomes if outcome.error]:
            raise RuntimeError(f"{len(bad)} were not placed: {bad[0]}")
        return used


def measure() -> dict[str, float]:
    """Return CPU milliseconds of placing 20,000 at once, and then of one more (median of some)."""
    with _cloud() as cloud:
        used = cloud.place(cloud.ask(_specs(PENDING)))
        _check(cloud.store)
        more = [cloud.place(cloud.ask([{**spec, "name": f"more-{n}"}])) for n, spec in enumerate(_specs(ONE))]
        return {KEY: round(used * 1e3, 1), "one_stored_cpu_ms": round(sorted(more)[ONE // 2] * 1e3, 2)}


def _specs(count: int) -> list[dict[str, Any]]:
    """Return what is asked for, by a seed."""
    rng = np.random.default_rng(SEED + 2)
    cpu = rng.choice([0.5, 1, 2, 4, 8], FLAVOURS)
    memory = cpu * rng.choice([1, 2, 4], FLAVOURS) * GIB
    picks = zip(rng.integers(0, TEMPLATES, count).tolist(), rng.integers(0, FLAVOURS, count).tolist(), strict=True)
    return [
        {
            "name": f"i{n}", "image": "tiny", "cpu": float(cpu[f]), "memory": int(memory[f]),
            "disk": 10 * GIB * (1 + f % 4), "nics": [{"network": NETS[t % len(NETS)]}],
            "requirements": {
                "datastore": STORES[t % 2], **({} if t % 3 else {"cluster": CLUSTERS[t % len(CLUSTERS)]}),
                "host_labels": {"tier": "gold"} if t % 2 else {},
            },
        }
        for n, (t, f) in enumerate(picks)
    ]  # fmt: skip


@contextmanager
def _cloud() -> Iterator[Cloud]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{Path(folder)}/state.db")
        store.migrate()
        try:
            yield store.write_now(lambda c: _fill(c, store))
        finally:
            store.close_now()


def _fill(c: sa.Connection, store: Store) -> Cloud:
    """Make everything that is there before anybody asks for an instance."""
    seed(c, "/srv/rackflow")
    admin, worker = access.find(c, "admin"), new_id()
    operations.renew_claim(c, worker, "bench", 3600)
    for name in CLUSTERS:
        clusters.ensure(c, admin, ClusterSpec(name=name))
    for name in STORES:
        datastores.ensure(c, admin, DatastoreSpec(name=name, path=f"/srv/{name}"))
    for place, name in enumerate(NETS):
        networks.ensure(c, admin, NetworkSpec.model_validate({
            "name": name, "bridge": f"br{place}", "subnet": f"10.{8 * place + 8}.0.0/13", "default_for": [],
            "ranges": [{"first": f"10.{8 * place + 8}.0.10", "last": f"10.{8 * place + 15}.255.250"}],
        }))  # fmt: skip
    at, rng = now(), np.random.default_rng(SEED)
    sql.insert(c, tables.image, [{
        "id": new_id(), "name": "tiny", "live_name": "tiny", "kind": "vm", "state": ImageState.READY, "source": "/tiny",
        "sha256": "ab" * 32, "format": "qcow2", "size_bytes": 10 * 2**20, "virtual_size_mib": 64, "min_memory_mib": 0,
        "spec": {}, "labels": {}, "created_at": at, "updated_at": at,
    }])  # fmt: skip
    ids = [new_id() for _ in range(HOSTS)]
    cluster = {row.name: row.id for row in c.execute(sa.select(tables.cluster.c.id, tables.cluster.c.name))}
    sizes = zip(rng.integers(0, 3, HOSTS).tolist(), rng.integers(0, len(CLUSTERS), HOSTS).tolist(), strict=True)
    sql.insert(c, tables.host, [{
        "id": ids[n], "name": f"h{n:05}", "live_name": f"h{n:05}", "cluster_id": cluster[CLUSTERS[of]],
        "driver": "fake", "address": f"10.99.{n // 250}.{n % 250}", "port": 22, "user": "root", "key_file": "",
        "host_key": "", "state": HostState.READY, "cpus": HOST_CPUS[size], "memory_mib": HOST_GIB[size] * GIB,
        "spec": {}, "labels": {"rack": f"r{n // 40}", "tier": "gold" if n % 3 else "base"},
        "facts": {"memory_mib": HOST_GIB[size] * GIB, "architecture": "x86_64"}, "capabilities": {"kinds": ["vm"]},
        "version": 1, "failures": 0, "seen_at": at, "created_at": at, "updated_at": at,
    } for n, (size, of) in enumerate(sizes)])  # fmt: skip
    for table, key, noun, more in (
        (tables.datastore_host, "datastore_id", tables.datastore, {"total_mib": 4096 * GIB, "free_mib": 4096 * GIB}),
        (tables.network_host, "network_id", tables.network, {"cidr": ""}),
    ):
        sql.insert(c, table, [
            {key: one, "host_id": host, "seen_at": at, **more}
            for one in c.scalars(sa.select(noun.c.id)) for host in ids if rng.random() < 0.8
        ])  # fmt: skip
    return Cloud(store, admin, worker)


def _check(store: Store) -> None:
    """Count again what was given away. Raise AssertionError when a host has more than it may, or an address two."""
    i, h, lease = tables.instance, tables.host, tables.lease
    over = (
        sa.select(h.c.id).join(i, i.c.host_id == h.c.id).group_by(h.c.id, h.c.cpus, h.c.memory_mib)
        .having(sa.or_(sa.func.sum(i.c.memory_mib) > h.c.memory_mib, sa.func.sum(i.c.cpu) > 4 * h.c.cpus))
    )  # fmt: skip
    count = sa.select(sa.func.count(), sa.func.count(lease.c.address.distinct())).select_from(lease)
    assert store.read_now(lambda c: c.execute(over).all()) == []
    assert store.read_now(lambda c: tuple(c.execute(count).one())) == (PENDING, PENDING)

