"""What is held of an instance, and then never goes on: its reservation, what it left elsewhere, its nouns."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from control import drift, instances, moving, operations, recovery, tables
from control.drift import ALERT, REPAIR
from control.lifecycle import VERBS, step_rule
from control.operations import Operation
from core.clock import now
from core.errors import Conflict, HostFault
from core.states import InstanceState, OperationState, StepState, Verb
from tests.rig import Rig

DONE, FAILED, RUNNING = StepState.DONE, StepState.FAILED, StepState.RUNNING
FULL = HostFault("the disk is full", "host/h2")


@pytest.fixture
def three(cloud: Rig) -> Rig:
    """Three hosts, and an instance on one of them."""
    cloud.host("h3")
    cloud.deploy("web")
    return cloud


def until(cloud: Rig, op: Operation, last: str) -> str:
    """Do the steps of a move, as the record sees them, up to one that fails; return the target."""
    target = cloud.run(lambda c: moving.reserve(c, op))

    def act(c: sa.Connection, name: str) -> None:
        sequence, rule = step_rule(op.verb, name)
        operations.begin_step(c, op, sequence, name, "", rule.compensation)
        if name == last:
            operations.fail_step(c, op, sequence, FULL)
            return
        if name == "switch":
            moving.switch(c, op, to=target)
        operations.end_step(c, op, sequence, changed=True, evidence={"to": target})

    names = [rule.name for rule in VERBS[op.verb].steps]
    for name in names[: names.index(last) + 1]:
        cloud.run(lambda c, n=name: act(c, n))  # type: ignore[misc]
    return target


def hold(cloud: Rig, op: Operation) -> None:
    def end(c: sa.Connection) -> None:
        instances.set_state(c, op.subject_id, InstanceState.HELD, epoch=op.epoch, reason=str(FULL))
        operations.finish(c, op, OperationState.HELD, error=FULL)

    cloud.run(end)


def held_move(cloud: Rig, last: str, *, live: bool = False) -> tuple[Operation, str, str]:
    """Return a migration that is held at a step, the host that it left and the one that it goes to."""
    source = cloud.show("web")["host"]
    cloud.submit(Verb.MIGRATE, {"instances": ["web"], "live": live})
    (op,) = cloud.claim()
    target = until(cloud, op, last)
    hold(cloud, op)
    return op, source, target


def other_host(cloud: Rig) -> tuple[Any, Any]:
    t = tables.instance
    found = sa.select(t.c.other_host_id, t.c.other_datastore_id).where(t.c.name == "web")
    row = cloud.run(lambda c: c.execute(found).one())
    return row[0], row[1]


def owed(cloud: Rig) -> list[tuple[str, str]]:
    """Return host and policy of what is left of instances."""
    rows = cloud.run(lambda c: drift.list_(c, cloud.admin))
    assert {row["kind"] for row in rows} <= {drift.RESIDUE}
    return [(row["host"], row["policy"]) for row in rows]


def ask(cloud: Rig, way: str) -> None:
    """Do something else with an instance that is held."""
    if way == "mark":
        cloud.run(lambda c: recovery.mark(c, cloud.admin, "web", InstanceState.OFF))
    else:
        cloud.submit(Verb(way), {"instances": ["web"]})


@pytest.mark.parametrize("way", ["start", "shutdown", "poweroff", "delete", "mark"])
def test_a_held_migration_gives_its_target_back_and_never_goes_on(three: Rig, way: str) -> None:
    op, _, target = held_move(three, "target-define")
    assert other_host(three) != (None, None)
    assert owed(three) == [], "while it is held it may go on"
    ask(three, way)
    assert other_host(three) == (None, None)
    assert owed(three) == [(target, REPAIR)]
    with pytest.raises(Conflict, match=r"was changed since|is busy"):
        three.run(lambda c: recovery.retry(c, three.admin, op.id))


def test_where_nothing_was_begun_nothing_is_owed(three: Rig) -> None:
    held_move(three, "target-image")
    ask(three, "start")
    assert (other_host(three), owed(three)) == ((None, None), [])


def test_the_next_migration_goes_where_nothing_is_left(three: Rig) -> None:
    _, source, target = held_move(three, "carry")
    ask(three, "mark")
    three.submit(Verb.MIGRATE, {"instances": ["web"], "live": False})
    (op,) = three.claim()
    assert three.run(lambda c: moving.reserve(c, op)) not in (source, target)


def test_what_waits_for_room_is_looked_at_again(three: Rig) -> None:
    held_move(three, "carry")
    (deploy,) = three.ask("late")
    (deploy,) = three.claim()
    three.run(lambda c: operations.postpone(c, deploy, "no room", now() + timedelta(hours=1)))
    assert three.claim() == []
    ask(three, "mark")
    assert [op.id for op in three.claim()] == [deploy.id]


@pytest.mark.parametrize(("last", "live", "policy"), [
    ("start-again", False, ALERT),  # both have a copy; the one on the target was never seen to start
    ("clear-source", False, REPAIR),
    ("clear-source", True, REPAIR),
])  # fmt: skip
def test_after_the_switch_what_is_left_is_on_the_source(three: Rig, last: str, live: bool, policy: str) -> None:
    _, source, target = held_move(three, last, live=live)
    assert three.show("web")["host"] == target
    ask(three, "start")
    assert (other_host(three), owed(three), three.show("web")["host"]) == ((None, None), [(source, policy)], target)


@pytest.mark.parametrize("last", ["transfer", "switch"])
def test_a_guest_that_may_run_on_the_target_already_is_not_taken_away(three: Rig, last: str) -> None:
    _, source, target = held_move(three, last, live=True)
    ask(three, "mark")
    assert (owed(three), three.show("web")["host"]) == ([(target, ALERT)], source)


def test_of_what_is_deleted_nothing_is_kept(three: Rig) -> None:
    _, _, target = held_move(three, "transfer", live=True)
    three.submit(Verb.DELETE, {"instances": ["web"]})
    assert owed(three) == [(target, ALERT)], "the delete may yet be cancelled"
    three.delete("web")
    assert owed(three) == [(target, REPAIR)]


@pytest.mark.parametrize(("verb", "body", "noun"), [
    (Verb.SAVE_IMAGE, {"image": "golden"}, tables.image), (Verb.BACKUP, {"backup": "golden"}, tables.backup),
])  # fmt: skip
@pytest.mark.parametrize("way", ["start", "delete", "mark"])
def test_no_image_or_backup_is_awaited_for_ever(
    three: Rig, verb: Verb, body: Mapping[str, Any], noun: sa.Table, way: str
) -> None:
    state = sa.select(noun.c.state).where(noun.c.name == "golden")
    three.submit(verb, {"instances": ["web"], **body})
    (op,) = three.claim()
    hold(three, op)
    assert three.run(lambda c: c.scalar(state)) == "pending", "while it is held it may come yet"
    ask(three, way)
    assert three.run(lambda c: c.scalar(state)) == "failed"


def test_what_is_over_is_ended_once(three: Rig) -> None:
    """The image was imported again since: a held operation that was superseded before has no say in it."""
    three.submit(Verb.SAVE_IMAGE, {"instances": ["web"], "image": "golden"})
    (op,) = three.claim()
    hold(three, op)
    ask(three, "mark")
    t = tables.image
    three.run(lambda c: c.execute(sa.update(t).where(t.c.name == "golden").values(state="pending")))
    three.run(lambda c: instances.set_state(c, op.subject_id, InstanceState.HELD, epoch=op.epoch + 1))
    ask(three, "start")
    assert three.run(lambda c: c.scalar(sa.select(t.c.state).where(t.c.name == "golden"))) == "pending"


def test_a_target_is_kept_by_the_operation_that_chose_it_only(three: Rig) -> None:
    three.submit(Verb.MIGRATE, {"instances": ["web"], "live": False})
    (op,) = three.claim()
    target = three.run(lambda c: moving.reserve(c, op))
    assert three.run(lambda c: moving.reserve(c, op)) == target, "it was cut off before its step ended"
    three.end([op], InstanceState.RUNNING, OperationState.FAILED)  # as it was left before this was looked after
    three.submit(Verb.MIGRATE, {"instances": ["web"], "live": False})
    (op,) = three.claim()
    chosen = three.run(lambda c: moving.reserve(c, op))
    assert chosen not in (target, three.show("web")["host"])
    assert owed(three) == [(target, ALERT)], "nobody knows what is there"
