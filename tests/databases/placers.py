"""What one of several processes does that place and delete at the same time, each with a store of its own."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from control import access, instances, operations, placing, requests
from control.operations import Operation
from control.store import Store
from core.ids import new_id
from core.states import InstanceState, OperationState, Verb

AT_ONCE = 4  # instances in one request


class Placer:
    """One of them. said: how often what came out."""

    def __init__(self, url: str, number: int) -> None:
        self.number, self.rng, self.worker = number, random.Random(number), new_id()
        self.store, self.said = Store(url), Counter[str]()
        self.admin = self.store.read_now(lambda c: access.find(c, "admin"))
        self.store.write_now(lambda c: operations.renew_claim(c, self.worker, f"placer {number}", 3600))

    def ask(self, verb: Verb, body: dict[str, Any]) -> list[Operation]:
        """Enter a request and claim its operations."""
        done = self.store.write_now(lambda c: requests.submit(c, self.admin, verb, body, source="test"))
        ids = [op.id for op in done.operations]
        self.said["operations"] += len(ids)
        taken: list[Operation] = []
        until = time.monotonic() + 60
        while len(taken) < len(ids):  # a claim leaves out what somebody locks in this moment
            taken += self.store.write_now(lambda c: operations.claim_pending(c, self.worker, only=ids))
            assert time.monotonic() < until, "an operation was lost"
        return taken

    def deploy(self, names: Sequence[str]) -> None:
        """Ask for instances and place them; one that fits nowhere has failed."""
        sizes = [self.rng.choice((128, 256, 512)) for _ in names]
        wanted = [{"name": n, "image": "tiny", "cpu": 1, "memory": m} for n, m in zip(names, sizes, strict=True)]
        ops = self.ask(Verb.DEPLOY, {"instances": wanted})
        outcomes = self.store.write_now(lambda c: placing.place(c, ops))

        def end(c: sa.Connection) -> None:
            for op, outcome in zip(ops, outcomes, strict=True):
                well = outcome.error is None
                state = InstanceState.RUNNING if well else InstanceState.FAILED
                instances.set_state(c, op.subject_id, state, epoch=op.epoch)
                operations.finish(c, op, OperationState.DONE if well else OperationState.FAILED, error=outcome.error)

        self.store.write_now(end)
        self.said.update(outcome.error.code if outcome.error else "placed" for outcome in outcomes)

    def delete(self, names: Sequence[str]) -> None:
        """Delete instances, all the way."""
        ops = self.ask(Verb.DELETE, {"instances": list(names)})

        def end(c: sa.Connection) -> None:
            for op in ops:
                instances.release(c, op, op.subject_id)
                instances.mark_deleted(c, op, op.subject_id)
                operations.finish(c, op, OperationState.DONE)

        self.store.write_now(end)


def place_and_delete(url: str, number: int, rounds: int) -> Counter[str]:
    """Place some and delete some, round by round, and all in the end; return what came out how often."""
    placer, there = Placer(url, number), list[str]()
    try:
        for turn in range(rounds):
            names = [f"p{number}-{turn}-{n}" for n in range(AT_ONCE)]
            placer.deploy(names)
            there += names
            placer.rng.shuffle(there)
            gone, there = there[:AT_ONCE - 1], there[AT_ONCE - 1 :]
            placer.delete(gone)
        placer.delete(there)
        return placer.said
    finally:
        placer.store.close_now()
