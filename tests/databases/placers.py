"""A process of its own that asks for instances, places them, deletes them, and puts hosts to sleep, beside others."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from typing import Any

import sqlalchemy as sa

from control import access, hosts, instances, operations, placing, requests, sleeping
from control.access import Principal
from control.operations import Operation
from control.store import Store
from core.errors import Conflict, NoCapacityNow, NoFit, RackflowError
from core.ids import new_id
from core.states import InstanceState, OperationState, Verb

NICS: tuple[dict[str, Any], ...] = ({}, {"nics": [{"network": "wire"}]})  # the lock of a pool, or hosts' versions only
DOZERS = ("h2", "h3")  # hosts that are put to sleep and woken meanwhile
SIZES: tuple[dict[str, Any], ...] = (
    {"cpu": 0.5, "memory": 256}, {"cpu": 1, "memory": 512}, {"cpu": 2, "memory": 256}, {"cpu": 3, "memory": 1024},
)


class Placer:
    """One worker: it asks for some, does whatever is pending, whoever asked for it, and deletes some of its own."""

    def __init__(self, store: Store, name: str, seed: int) -> None:
        """Take up work with a claim that stands for an hour."""
        self.store, self.name, self.dice = store, name, random.Random(seed)
        self.admin: Principal = store.read_now(lambda c: access.find(c, "admin"))
        self.worker = new_id()
        self.mine: list[str] = []
        self.seen: Counter[str] = Counter()
        store.write_now(lambda c: operations.renew_claim(c, self.worker, name, 3600))

    def round(self) -> None:
        """Ask for a few, do what is pending, delete a few; switch a host off or on."""
        self.ask()
        self.work()
        self.switch(self.dice.choice((Verb.SLEEP, Verb.WAKE)), self.dice.choice(DOZERS))
        self.delete([name for name in self.mine if self.dice.random() < 0.4])
        self.work()

    def ask(self) -> None:
        """Ask for one to four instances."""
        names = [f"{self.name}-{len(self.mine)}-{self.seen['asked']}-{n}" for n in range(self.dice.randint(1, 4))]
        kinds = [{**self.dice.choice(SIZES), **self.dice.choice(NICS)} for _ in names]
        wanted = [{"name": name, "image": "tiny", **kind} for name, kind in zip(names, kinds, strict=True)]
        self._submit(Verb.DEPLOY, wanted)
        self.mine += names
        self.seen["asked"] += len(names)

    def delete(self, names: Sequence[str]) -> None:
        """Ask for the end of some; one that is still being deployed is cancelled first."""
        if names:
            self._submit(Verb.DELETE, list(names))
            self.mine = [name for name in self.mine if name not in names]
            self.seen["deleted"] += len(names)

    def switch(self, verb: Verb, host: str) -> None:
        """Ask for a host to be put to sleep or woken, and count what became of that."""
        try:
            self.store.write_now(lambda c: requests.submit(c, self.admin, verb, {"hosts": [host]}, source="test"))
        except Conflict:
            self.seen[f"{verb} refused"] += 1
        else:
            self.seen[verb.value] += 1

    def work(self) -> bool:
        """Do what is pending, whoever asked for it; return whether there was anything."""
        ops = self.store.write_now(lambda c: operations.claim_pending(c, self.worker, limit=6))
        undo = [op for op in ops if op.verb is Verb.DEPLOY and op.state is OperationState.COMPENSATING]
        deploys = [op for op in ops if op.verb is Verb.DEPLOY and op not in undo]
        if deploys:
            self._place(deploys)
        for op in undo:
            self.store.write_now(lambda c, op=op: _end(c, op, OperationState.COMPENSATED))  # type: ignore[misc]
        for op in ops:
            if op.verb is Verb.DELETE:
                self.store.write_now(lambda c, op=op: _gone(c, op))  # type: ignore[misc]
            elif op.verb in _SWITCHED:
                self.store.write_now(lambda c, op=op: _SWITCHED[op.verb](c, op))  # type: ignore[misc]
        return bool(ops)

    def _place(self, ops: Sequence[Operation]) -> None:
        for op, outcome in zip(ops, self.store.write_now(lambda c: placing.place(c, ops)), strict=True):
            self.seen["placed" if outcome.error is None else type(outcome.error).__name__] += 1
            if outcome.error is None:
                self._finish(op)
            elif isinstance(outcome.error, NoCapacityNow | NoFit):
                self.store.write_now(lambda c, op=op: _end(c, op, OperationState.FAILED))  # type: ignore[misc]

    def _finish(self, op: Operation) -> None:
        try:
            self.store.write_now(lambda c: _done(c, op))
        except RackflowError:  # it was cancelled meanwhile: it will be pending again, to be undone
            self.seen["overtaken"] += 1

    def _submit(self, verb: Verb, wanted: list[Any]) -> None:
        body = {"instances": wanted}
        self.store.write_now(lambda c: requests.submit(c, self.admin, verb, body, source="test"))


def _done(c: sa.Connection, op: Operation) -> None:
    instances.set_states(c, [(op.subject_id, InstanceState.RUNNING, op.epoch, "")])
    operations.finish(c, op, OperationState.DONE)


def _end(c: sa.Connection, op: Operation, how: OperationState) -> None:
    instances.release(c, op, op.subject_id)
    instances.set_states(c, [(op.subject_id, InstanceState.FAILED, op.epoch, "")])
    operations.finish(c, op, how)


def _gone(c: sa.Connection, op: Operation) -> None:
    instances.release(c, op, op.subject_id)
    instances.mark_deleted(c, op, op.subject_id)
    operations.finish(c, op, OperationState.DONE)


def _asleep(c: sa.Connection, op: Operation) -> None:
    sleeping.require_chosen(c, op, hosts.get(c, op.subject_id))
    sleeping.record_asleep(c, op, op.subject_id)
    operations.finish(c, op, OperationState.DONE)


def _awake(c: sa.Connection, op: Operation) -> None:
    sleeping.record_awake(c, op, op.subject_id)
    operations.finish(c, op, OperationState.DONE)


_SWITCHED = {Verb.SLEEP: _asleep, Verb.WAKE: _awake}


def run(url: str, name: str, seed: int, rounds: int, ready: Barrier, report: Any) -> None:
    """Work in this process; put what was seen, or the error, into a queue."""
    store = Store(url)
    try:
        placer = Placer(store, name, seed)
        ready.wait(timeout=60)
        placer.switch(Verb.SLEEP, DOZERS[seed % len(DOZERS)])  # they are seldom empty later
        for _ in range(rounds):
            placer.round()
        report.put(dict(placer.seen))
    except Exception as error:
        report.put(repr(error))
        raise
    finally:
        store.close_now()
