"""The ledger under any order of events: requests, claims, dead workers, late writes, ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from control import instances, operations, tables
from control.lifecycle import VERBS
from control.operations import Operation, Stale
from core.errors import Conflict, NotFound
from core.ids import new_id
from core.states import UNFINISHED, InstanceState, OperationState, Verb
from tests.rig import Rig, in_memory

NAMES = ("a", "b", "c")
ENDS = (OperationState.DONE, OperationState.FAILED, OperationState.HELD, OperationState.CANCELLED)


class Ledger(RuleBasedStateMachine):
    """Three instances, two workers. held: what a worker believes to hold, right or not."""

    held = Bundle("held")

    @initialize()
    def begin(self) -> None:
        self.rig = Rig(in_memory())
        self.rig.network()
        self.rig.host("h1", cpus=64, memory_mib=65536)
        self.rig.image()
        self.workers = [new_id(), new_id()]
        for worker in self.workers:
            self.renew(worker)
        self.epochs: dict[str, int] = {}

    def renew(self, worker: str, claim_s: float = 3600) -> None:
        self.rig.run(lambda c: operations.renew_claim(c, worker, "test", claim_s))

    @rule(name=st.sampled_from(NAMES), verb=st.sampled_from([Verb.DEPLOY, Verb.START, Verb.SHUTDOWN, Verb.DELETE]))
    def ask(self, name: str, verb: Verb) -> None:
        spec = {"name": name, "image": "tiny", "memory": 64, "cpu": 0.5}
        with suppress(Conflict, NotFound):
            self.rig.submit(verb, {"instances": [spec if verb is Verb.DEPLOY else name]})

    @rule(target=held, which=st.integers(0, 1), limit=st.integers(1, 3))
    def claim(self, which: int, limit: int) -> object:
        ops = self.rig.claim(self.workers[which], limit)
        for op in ops:
            assert op.epoch > self.epochs.get(op.subject, 0), "a claim's epoch lies above all before it"
            self.epochs[op.subject] = op.epoch
        return multiple(*ops)

    @rule(which=st.integers(0, 1))
    def die(self, which: int) -> None:
        """A worker's claim runs out; a new one comes under another name."""
        self.renew(self.workers[which], -1)
        self.workers[which] = new_id()
        self.renew(self.workers[which])

    @rule(op=held)
    def release(self, op: Operation) -> None:
        self.rig.run(lambda c: operations.release(c, [op.id]))

    @rule(op=held, sequence=st.integers(1, 5))
    def step(self, op: Operation, sequence: int) -> None:
        if self.is_current(op):
            self.rig.run(lambda c: operations.begin_step(c, op, sequence, "step"))
            self.rig.run(lambda c: operations.end_step(c, op, sequence, changed=True))
        else:
            with pytest.raises(Stale):
                self.rig.run(lambda c: operations.begin_step(c, op, sequence, "step"))

    @rule(op=held)
    def postpone(self, op: Operation) -> None:
        if self.is_current(op):
            self.rig.run(lambda c: operations.postpone(c, op, "later", None))

    @rule(op=held, how=st.sampled_from(ENDS))
    def end(self, op: Operation, how: OperationState) -> None:
        if not self.is_current(op):
            before = self.instance_state(op)
            with pytest.raises(Stale):
                self.rig.run(lambda c: operations.finish(c, op, how))
            self.rig.run(lambda c: instances.set_state(c, op.subject_id, InstanceState.HELD, epoch=op.epoch - 1))
            if before is not None and self.instance_epoch(op) >= op.epoch:
                assert self.instance_state(op) == before, "a late write does not overrule a newer change"
            return
        self.rig.run(lambda c: self.settle(c, op, how))

    def settle(self, c: sa.Connection, op: Operation, how: OperationState) -> None:
        found = VERBS[op.verb]
        if how is OperationState.DONE and op.verb is Verb.DELETE:
            instances.mark_deleted(c, op, op.subject_id)
        elif how is not OperationState.HELD and op.verb is Verb.DELETE:
            instances.not_deleted(c, op, op.subject_id, "")
        else:
            state = {OperationState.DONE: found.done, OperationState.HELD: InstanceState.HELD}.get(how, found.failed)
            assert instances.set_state(c, op.subject_id, state, epoch=op.epoch)
        operations.finish(c, op, how)

    def is_current(self, op: Operation) -> bool:
        found = self.rig.get(op)
        return found.finished_at is None and found.epoch == op.epoch

    def instance_state(self, op: Operation) -> str | None:
        t = tables.instance
        return self.rig.run(lambda c: c.execute(sa.select(t.c.state).where(t.c.id == op.subject_id)).scalar())

    def instance_epoch(self, op: Operation) -> int:
        t = tables.instance
        return int(self.rig.run(lambda c: c.execute(sa.select(t.c.epoch).where(t.c.id == op.subject_id)).scalar_one()))

    def unfinished(self) -> Sequence[Any]:
        t = tables.operation
        return self.rig.run(lambda c: c.execute(sa.select(t).where(t.c.state.in_(UNFINISHED))).all())

    @invariant()
    def one_operation_has_the_right_to_a_subject(self) -> None:
        if not hasattr(self, "rig"):
            return
        rows = self.unfinished()
        owners = Counter(row.open_subject for row in rows if row.open_subject)
        assert all(count == 1 for count in owners.values())
        running = Counter(row.subject for row in rows if row.state != OperationState.PENDING)
        assert all(count == 1 for count in running.values())

    def teardown(self) -> None:
        """Nothing is stuck: when all workers die, a new one takes over everything and brings it to an end."""
        if not hasattr(self, "rig"):
            return
        for worker in self.workers:
            self.renew(worker, -1)
        last = new_id()
        self.renew(last)
        for _ in range(10):
            for op in self.rig.claim(last):
                self.rig.run(lambda c, op=op: self.settle(c, op, OperationState.DONE))  # type: ignore[misc]
        assert self.unfinished() == []


Ledger.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLedger = Ledger.TestCase
