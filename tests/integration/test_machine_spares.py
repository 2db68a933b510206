"""Spare machines: proposed for clusters that run out, commissioned by hand or by themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from control import machines, spares, tables
from core.clock import now, rfc3339
from core.errors import Conflict, Invalid
from core.states import MachineState, OperationState, Verb
from tasks.spares import keep_spares
from tests.integration.line import Line

VERB = Verb.ENROLL_MACHINE
DISK = {
    "image": "/nowhere.raw", "sha256": "0" * 64, "address": "10.99.0.9/24", "ramdisk_key": "ssh-ed25519 AAAA",
}  # fmt: skip
SPARE = {
    "machines": [{"name": "m1", "bmc": "fake://m1", "spare": True, "host": {"role": "kvm"}, "install": DISK}]
}  # fmt: skip


class Forecast:
    """What the history's owner would say."""

    def __init__(self, *, proven: bool = True) -> None:
        self.proven, self.asked = proven, 0

    def outlook(self) -> list[dict[str, Any]]:
        self.asked += 1
        return [{
            "cluster": "default", "resource": "cpu", "total": 192.0, "in_30_days_high": 200.0, "proven": self.proven,
            "earliest_at": rfc3339(now() + timedelta(days=5)),
        }]  # fmt: skip


@pytest.fixture
async def spare(line: Line) -> Line:
    (op,) = await line.run(VERB, SPARE)
    assert (op.state, op.error) == (OperationState.DONE, None)
    assert [name for name, _ in line.steps(op.id)] == ["power", "inspect", "classify", "check"]
    return line


def machine(line: Line) -> machines.MachineRecord:
    return line.store.read_now(lambda c: machines.get(c, "m1"))


def label(line: Line, value: str) -> None:
    line.store.write_now(lambda c: c.execute(sa.update(tables.cluster).values(labels={spares.LABEL: value})))


def asked(line: Line) -> list[dict[str, Any]]:
    t = tables.operation
    wanted = sa.select(t).where(t.c.verb == VERB).order_by(t.c.id)
    rows = line.store.read_now(lambda c: c.execute(wanted).mappings().all())
    return [dict(one) for one in rows if one["parameters"].get("commission")]


async def test_it_is_proposed_with_what_it_adds(spare: Line) -> None:
    found = spare.store.read_now(lambda c: spares.proposals(c, spare.admin, Forecast().outlook(), now()))
    assert [(one["cluster"], one["machine"], one["enough"], one["automatic"]) for one in found] == [
        ("default", "m1", True, False)
    ]
    (one,) = spare.store.read_now(spares.ready)
    assert one.adds["cpu"] == 16 * 4.0  # the cluster's overcommit


async def test_a_cluster_that_may_commissions_by_itself_once(spare: Line) -> None:
    spare.runtime.analytics = Forecast()  # type: ignore[assignment]
    assert await keep_spares() == []  # nobody said that it may
    label(spare, spares.AUTOMATIC)
    assert await keep_spares() == ["m1"]
    assert await keep_spares() == []  # not yet again
    spare.runtime.spared = -1e9
    assert await keep_spares() == []  # it is under way
    (op,) = asked(spare)
    assert op["parameters"]["stages"][4:] == ["ramdisk", "install", "boot", "configure", "enroll", "verify"]
    assert machine(spare).spec["spare"] is False


async def test_a_forecast_that_is_not_proven_moves_nothing(spare: Line) -> None:
    spare.runtime.analytics = Forecast(proven=False)  # type: ignore[assignment]
    label(spare, spares.AUTOMATIC)
    assert await keep_spares() == []
    assert asked(spare) == []


async def test_a_commissioning_that_fails_leaves_a_spare_that_is_faulty(spare: Line) -> None:
    (op,) = await spare.run(VERB, {"names": ["m1"], "commission": True})
    assert op.state in (OperationState.FAILED, OperationState.COMPENSATED), op.reason
    assert spare.steps(op.id)[-1] == ("ramdisk", "failed")  # it has no network card to start from
    found = machine(spare)
    assert (found.state, found.spec["spare"]) == (MachineState.FAULTY, True)
    assert spare.store.read_now(spares.ready) == []


async def test_only_spares_are_commissioned(line: Line) -> None:
    await line.run(VERB, {"machines": [{"name": "m1", "bmc": "fake://m1"}]})
    with pytest.raises(Conflict, match="is no spare"):
        line.submit(VERB, {"names": ["m1"], "commission": True})
    with pytest.raises(Invalid, match="a spare needs host"):
        line.submit(VERB, {"machines": [{"name": "m2", "bmc": "fake://m2", "spare": True}]})
