"""A configured machine becomes a host, and shows that it is one: a test instance is deployed there and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from control import commission, operations
from control.machines import MachineRecord
from control.operations import Operation
from core.errors import HostFault, RackflowError
from core.states import OperationState, Verb
from drivers.role import role_of
from tasks.configure import configure
from tasks.install import endpoint_of, evidence
from tasks.ledger import Seen
from tasks.runtime import Runtime

ENROLL_S, VERIFY_S = 900.0, 1800.0
LOOK_S = 0.5
Body = Callable[[Any], dict[str, Any]]


class Commission:
    """The steps for one machine, after those that install it."""

    def __init__(self, rt: Runtime, op: Operation, record: MachineRecord) -> None:
        self.rt, self.op, self.record = rt, op, record
        self.host: dict[str, Any] = record.spec["host"]
        self.subject = f"machine/{record.name}"

    async def configure(self, _: Operation) -> Seen:
        """Make it a hypervisor over SSH; its host key is the one that it was given, or whose fingerprint was asked."""
        t = await self.rt.pool.transport(await endpoint_of(self.rt, self.op, self.record))
        return await configure(t, role_of(self.host, (await self._fresh()).role))

    async def enroll(self, _: Operation) -> Seen:
        """Enroll it as a host, as an operation of its own."""
        fresh = await self._fresh()
        endpoint = await endpoint_of(self.rt, self.op, self.record)
        body = commission.host_body(self.record, fresh, endpoint.address, await self._fingerprint())
        done = await self._child(Verb.ENROLL, "enroll", lambda c: body)
        return Seen(True, {"operation": done.id, "role": fresh.role, "cluster": fresh.cluster})

    async def verify(self, _: Operation) -> Seen:
        """Deploy a test instance there and delete it; then the machine is ready. Else its host is put out of use."""
        name = commission.test_name(self.op)
        try:
            kind = (await self._fresh()).kind
            made = await self._child(
                Verb.DEPLOY, "verify", lambda c: commission.test_body(c, self.record, kind, name)
            )
            gone = await self._child(Verb.DELETE, "clean", lambda c: {"instances": [name]})
        except (RackflowError, asyncio.CancelledError) as error:
            await asyncio.shield(self._out_of_use(name, error))
            raise
        return Seen(True, {"deploy": made.id, "delete": gone.id, "instance": name})

    async def _fresh(self) -> commission.Outcome:
        return await self.rt.store.read(lambda c: commission.outcome(c, self.record.id))

    async def _fingerprint(self) -> str:
        if self.record.spec["install"] is None:
            return str(self.host["fingerprint"])
        return str((await evidence(self.rt, self.op, "install"))["fingerprint"])

    async def _child(self, verb: Verb, key: str, body: Body) -> Operation:
        """Ask for a part of this as an operation of its own, once, and wait for its end. Raise HostFault."""
        asked = await self.rt.store.write(lambda c: commission.ask(c, self.op, verb, key, body))
        self.rt.wake()
        try:
            child = await self._ended(asked.id)
        except asyncio.CancelledError:
            await asyncio.shield(self.rt.store.write(lambda c: commission.cancel(c, self.op, asked.id)))
            raise
        if child.state is not OperationState.DONE:
            error = child.error or {}
            raise HostFault(
                f"{verb} of {child.subject_name} ended as {child.state}: {error.get('message') or child.reason}",
                self.subject, {"operation": child.id, "error": error},
                error.get("fix") or f"rackflow operation show {child.id}",
            )  # fmt: skip
        return child

    async def _ended(self, child: str) -> Operation:
        while True:
            (found,) = await self.rt.store.read(lambda c: operations.get(c, [child]))
            if found.finished_at is not None or found.state is OperationState.HELD:
                return found
            await asyncio.sleep(LOOK_S)

    async def _out_of_use(self, name: str, error: BaseException) -> None:
        """Let nothing be placed on a host that could not show that it is one, and take the test instance away."""
        said = error if isinstance(error, RackflowError) else HostFault("its verification was cancelled", self.subject)
        await self.rt.store.write(lambda c: commission.put_out_of_use(c, self.op, self.record.name, name, said))
        self.rt.wake()
