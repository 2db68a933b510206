"""A small cloud in the record, without hosts: what tests of the room control share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from blueprints.network import NetworkSpec
from control import (
    access,
    datastores,
    host_looks,
    hosts,
    images,
    instances,
    networks,
    operations,
    placing,
    requests,
    tables,
)
from control.access import Principal
from control.operations import Operation
from control.requests import Accepted
from control.seed import seed
from core.ids import new_id
from core.states import InstanceState, OperationState, Verb

T = TypeVar("T")
SHA = "ab" * 32
LAN = {
    "name": "lan", "bridge": "br0", "subnet": "10.9.0.1/24", "gateway": "10.9.0.254",
    "ranges": [{"first": "10.9.0.10", "last": "10.9.0.250"}], "default_for": ["vm", "container"],
}  # fmt: skip


class Run(Protocol):
    """How a function of a connection is run: through a store, or on an engine in memory."""

    def __call__(self, change: Callable[[sa.Connection], T]) -> T: ...


def in_memory() -> Run:
    """Return a runner over a fresh SQLite in memory, one transaction per call."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    tables.metadata.create_all(engine)

    def run(change: Callable[[sa.Connection], T]) -> T:
        with engine.begin() as c:
            return change(c)

    return run


class Rig:
    """A cloud with the seed's rows, an administrator and a worker whose claim stands."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.hosts = 0
        run(lambda c: seed(c, "/srv/rackflow"))
        self.admin = run(lambda c: access.find(c, "admin"))
        self.worker = new_id()
        run(lambda c: operations.renew_claim(c, self.worker, "test", 3600))

    def user(self, name: str) -> Principal:
        return self.run(lambda c: access.named(c, name))

    def submit(
        self, verb: Verb, body: dict[str, Any], *, by: Principal | None = None, key: str | None = None
    ) -> Accepted:
        who = by or self.admin
        return self.run(lambda c: requests.submit(c, who, verb, body, source="test", idempotency_key=key))

    def claim(self, worker: str | None = None, limit: int = 1000) -> list[Operation]:
        return self.run(lambda c: operations.claim_pending(c, worker or self.worker, limit=limit))

    def network(self, **changes: Any) -> str:
        spec = NetworkSpec.model_validate({**LAN, **changes})
        return self.run(lambda c: networks.ensure(c, self.admin, spec))[0]

    def host(
        self, name: str, *, cpus: float = 4, memory_mib: int = 4096, kinds: Sequence[str] = ("vm", "container"),
        disk_mib: int = 100_000, bridges: dict[str, str] | None = None,
        capabilities: dict[str, Any] | None = None, **spec: Any,
    ) -> str:  # fmt: skip
        """Enroll a host; return its id."""
        self.hosts += 1
        number = self.hosts
        self.submit(Verb.ENROLL, {"hosts": [{"name": name, "address": f"10.1.{number // 250}.{number % 250}", **spec}]})
        (op,) = self.claim()
        seen = {"br0": "10.9.0.1/24"} if bridges is None else bridges

        def enroll(c: sa.Connection) -> None:
            hosts.record_enrolled(
                c, op, op.subject_id, driver="fake", host_key="ssh-ed25519 AAAA", cpus=cpus, memory_mib=memory_mib,
                facts={"cpus": int(cpus), "memory_mib": memory_mib},
                capabilities={"kinds": list(kinds), **(capabilities or {})},
            )  # fmt: skip
            store = datastores.by_name(c, ["local"])["local"].id
            host_looks.write(c, {op.subject_id: host_looks.Seen([(store, disk_mib, disk_mib)], seen)})
            operations.finish(c, op, OperationState.DONE)

        self.run(enroll)
        return op.subject_id

    def image(self, name: str = "tiny", *, kind: str = "vm", sha256: str = SHA, size_mib: int = 10, **spec: Any) -> str:
        """Import an image; return its id."""
        self.submit(Verb.IMPORT, {"images": [{"name": name, "kind": kind, "source": f"/{name}.qcow2", **spec}]})
        (op,) = self.claim()

        def imported(c: sa.Connection) -> None:
            images.record_imported(
                c, op, op.subject_id, sha256=sha256, format="qcow2", size_bytes=size_mib * 2**20, virtual_size_mib=64
            )
            operations.finish(c, op, OperationState.DONE)

        self.run(imported)
        return op.subject_id

    def ask(self, *names: str, by: Principal | None = None, **spec: Any) -> list[Operation]:
        """Submit deploys; return their operations, not claimed."""
        wanted = [{"image": "tiny", "memory": 256, "cpu": 1, **spec, "name": name} for name in names]
        return self.submit(Verb.DEPLOY, {"instances": wanted}, by=by).operations

    def place(self, ops: Sequence[Operation], features: dict[str, Any] | None = None) -> list[placing.Outcome]:
        return self.run(lambda c: placing.place(c, ops, features or {}))

    def deploy(self, *names: str, by: Principal | None = None, **spec: Any) -> list[str]:
        """Deploy instances until they are recorded as running; return their ids."""
        wanted = {op.id for op in self.ask(*names, by=by, **spec)}
        ops = [op for op in self.claim() if op.id in wanted]
        outcomes = self.place(ops)
        assert all(outcome.error is None for outcome in outcomes), outcomes
        self.end(ops, InstanceState.RUNNING)
        return [op.subject_id for op in ops]

    def end(self, ops: Sequence[Operation], state: InstanceState, how: OperationState = OperationState.DONE) -> None:
        """End operations on instances with a state."""

        def end(c: sa.Connection) -> None:
            instances.set_states(c, [(op.subject_id, state, op.epoch, "") for op in ops])
            operations.finish_all(c, [(op, how, None) for op in ops])

        self.run(end)

    def delete(self, *names: str) -> None:
        """Delete instances, all the way."""
        self.submit(Verb.DELETE, {"instances": list(names)})
        ops = self.claim()

        def end(c: sa.Connection) -> None:
            for op in ops:
                instances.release(c, op, op.subject_id)
                instances.mark_deleted(c, op, op.subject_id)
                operations.finish(c, op, OperationState.DONE)

        self.run(end)

    def show(self, name: str) -> dict[str, Any]:
        return self.run(lambda c: instances.show(c, self.admin, name))

    def get(self, op: Operation) -> Operation:
        return self.run(lambda c: operations.get(c, [op.id]))[0]

    def events(self, kind: str) -> list[dict[str, Any]]:
        t = tables.outbox
        rows = self.run(lambda c: c.execute(sa.select(t.c.payload).where(t.c.kind == kind).order_by(t.c.id)).all())
        return [row.payload for row in rows]


def as_if(op: Operation, epoch: int) -> Operation:
    """Return an operation as somebody with another epoch holds it."""
    return replace(op, epoch=epoch)
