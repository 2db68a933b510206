"""The ledger's promises on every database: claims, epochs, steps, ends, one unfinished operation per subject."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from control import instances, operations, tables
from control.operations import Operation, Stale
from control.waiting import wake
from core.clock import now
from core.errors import Conflict, HostFault, Unreachable
from core.ids import new_id
from core.states import ImageState, InstanceState, OperationState, StepState, Verb
from tests.rig import Rig, as_if


@pytest.fixture
def cloud(rig: Rig) -> Rig:
    rig.network()
    rig.host("h1", cpus=64, memory_mib=65536)
    rig.image()
    return rig


def claimed(cloud: Rig, *names: str) -> list[Operation]:
    cloud.ask(*names)
    return cloud.claim()


def test_a_claim_is_taken_once_and_with_a_new_epoch(cloud: Rig) -> None:
    asked = cloud.ask("a", "b")
    first = cloud.claim()
    assert [op.id for op in first] == [op.id for op in asked]
    assert {(op.state, op.epoch, op.claimed_by, op.attempts) for op in first} == {
        (OperationState.RUNNING, 1, cloud.worker, 1)
    }
    assert [cloud.get(op) for op in first] == first
    assert cloud.claim() == []
    assert cloud.run(lambda c: operations.active_of(c, cloud.worker)) == first


def test_a_claim_after_a_delete_that_never_began_has_a_newer_epoch(cloud: Rig) -> None:
    cloud.deploy("a")
    cloud.submit(Verb.DELETE, {"instances": ["a"]})
    (gone,) = cloud.claim()

    def fail(c: sa.Connection) -> None:
        instances.not_deleted(c, gone, gone.subject_id, "")
        operations.finish(c, gone, OperationState.FAILED)

    cloud.run(fail)
    cloud.submit(Verb.SHUTDOWN, {"instances": ["a"]})
    (later,) = cloud.claim()
    assert later.epoch > gone.epoch


def test_limit_and_only_choose_what_is_claimed(cloud: Rig) -> None:
    asked = cloud.ask("a", "b", "c")
    only = cloud.run(lambda c: operations.claim_pending(c, cloud.worker, only=[asked[2].id]))
    assert [op.subject_name for op in only] == ["c"]
    assert [op.subject_name for op in cloud.claim(limit=1)] == ["a"]


def test_higher_priorities_are_claimed_first_also_of_what_waited_for_room(cloud: Rig) -> None:
    cloud.ask("low", priority=10)
    cloud.ask("usual", "second")
    cloud.ask("high", priority=90)
    assert [[op.subject_name for op in cloud.claim(limit=1)] for _ in range(2)] == [["high"], ["usual"]]
    high, usual = sorted(cloud.run(lambda c: operations.active_of(c, cloud.worker)), key=lambda op: op.subject_name)
    later = now() + timedelta(hours=1)
    for op in (usual, high):
        cloud.run(lambda c, op=op: operations.postpone(c, op, "no room", later))  # type: ignore[misc]
    assert cloud.run(wake) == 2
    taken = [[op.subject_name for op in cloud.claim(limit=1)] for _ in range(4)]
    assert taken == [["high"], ["usual"], ["second"], ["low"]]


def test_what_is_placed_again_keeps_its_priority(cloud: Rig) -> None:
    cloud.deploy("a", "b", priority=70)
    t = tables.operation
    for verb in (Verb.UNDEPLOY, Verb.START):
        cloud.submit(verb, {"instances": ["a"]})
        ops = cloud.claim()
        found = cloud.run(lambda c, ids=[op.id for op in ops]: list(  # type: ignore[misc]
            c.scalars(sa.select(t.c.priority).where(t.c.id.in_(ids)))
        ))  # fmt: skip
        assert found == [70 if verb is Verb.START else 50]
        cloud.end(ops, InstanceState.UNDEPLOYED)


def test_an_expired_claim_is_taken_over_and_the_old_holder_is_refused(cloud: Rig) -> None:
    other = new_id()
    cloud.run(lambda c: operations.renew_claim(c, other, "other", 3600))
    (old,) = claimed(cloud, "a")
    cloud.run(lambda c: operations.begin_step(c, old, 1, "place"))
    assert cloud.claim(other) == []
    assert cloud.run(lambda c: operations.renew_claim(c, cloud.worker, "test", -1))
    assert not cloud.run(lambda c: operations.claim_stands(c, cloud.worker))
    (new,) = cloud.claim(other)
    assert (new.epoch, new.claimed_by) == (old.epoch + 1, other)
    for write in (
        lambda c: operations.begin_step(c, old, 2, "image"),
        lambda c: operations.end_step(c, old, 1, changed=True),
        lambda c: operations.fail_step(c, old, 1, Unreachable("gone")),
        lambda c: operations.undo_step(c, old, 1),
        lambda c: operations.postpone(c, old, "later", None),
        lambda c: operations.compensating(c, old, None),
        lambda c: operations.set_parameters(c, old, {}),
        lambda c: operations.finish(c, old, OperationState.DONE),
    ):
        with pytest.raises(Stale) as refused:
            cloud.run(write)
        assert refused.value.operations == [old.id]
    assert not cloud.run(lambda c: operations.renew_claim(c, cloud.worker, "test", 60)), "it had run out"
    cloud.run(lambda c: operations.end_step(c, new, 1, changed=False))


def test_what_is_released_is_claimed_again_and_its_holder_is_stale_at_once(cloud: Rig) -> None:
    (op,) = claimed(cloud, "a")
    cloud.run(lambda c: operations.release(c, [op.id]))
    with pytest.raises(Stale):
        cloud.run(lambda c: operations.begin_step(c, op, 1, "place"))
    (again,) = cloud.claim()
    assert again.state is OperationState.RUNNING
    assert again.epoch > op.epoch


def test_a_dropped_claim_frees_everything_held_under_it(cloud: Rig) -> None:
    ops = claimed(cloud, "a", "b")
    cloud.run(lambda c: operations.drop_claim(c, cloud.worker))
    assert [op.id for op in cloud.claim(new_id())] == [op.id for op in ops]


def test_compensation_goes_on_under_a_new_claim(cloud: Rig) -> None:
    (op,) = claimed(cloud, "a")
    cloud.run(lambda c: operations.compensating(c, op, HostFault("disk broke")))
    cloud.run(lambda c: operations.release(c, [op.id]))
    (again,) = cloud.claim()
    assert again.state is OperationState.COMPENSATING
    assert again.error is not None
    assert again.error["code"] == "host-fault"


def test_what_is_postponed_waits_for_its_time(cloud: Rig) -> None:
    ops = claimed(cloud, "a", "b")
    cloud.run(lambda c: operations.postpone(c, ops[0], "cloud is full", now() + timedelta(hours=1)))
    cloud.run(lambda c: operations.postpone(c, ops[1], "try again", None))
    again = cloud.claim()
    assert [op.id for op in again] == [ops[1].id]
    waiting = cloud.get(ops[0])
    assert (waiting.state, waiting.reason, waiting.claimed_by) == (OperationState.PENDING, "cloud is full", None)


def test_steps_begin_end_fail_and_are_not_repeated_when_done(cloud: Rig) -> None:
    (op,) = claimed(cloud, "a")
    begun = cloud.run(lambda c: operations.begin_step(c, op, 1, "place", "h1", "release"))
    assert (begun.state, begun.attempt, begun.compensation) == (StepState.RUNNING, 1, "release")
    cloud.run(lambda c: operations.fail_step(c, op, 1, Unreachable("no answer", "host/h1")))
    again = cloud.run(lambda c: operations.begin_step(c, op, 1, "place", "h2", "release"))
    assert (again.id, again.attempt, again.host, again.error) == (begun.id, 2, "h2", None)
    cloud.run(lambda c: operations.end_step(c, op, 1, changed=True, evidence={"host": "h2"}))
    (done,) = cloud.run(lambda c: operations.steps_of(c, [op.id]))[op.id]
    assert (done.state, done.changed, done.evidence) == (StepState.DONE, True, {"host": "h2"})
    assert cloud.run(lambda c: operations.begin_step(c, op, 1, "place", "h3")) == done
    cloud.run(lambda c: operations.undo_step(c, op, 1))
    (undone,) = cloud.run(lambda c: operations.steps_of(c, [op.id]))[op.id]
    assert undone.state is StepState.COMPENSATED
    outcomes = [(e["step"], e["attempt"], e["outcome"], e["instance"], e["image"]) for e in cloud.events("step")]
    assert outcomes == [
        ("place", 1, "unreachable", "a", "tiny"), ("place", 2, "done", "a", "tiny"),
        ("place", 2, "compensated", "a", "tiny"),
    ]  # fmt: skip


def test_a_batch_of_steps_is_all_or_nothing(cloud: Rig) -> None:
    a, b = claimed(cloud, "a", "b")
    stale = as_if(b, b.epoch - 1)
    with pytest.raises(Stale) as refused:
        cloud.run(lambda c: operations.begin_steps(c, [(a, 1, "place", "", ""), (stale, 1, "place", "", "")]))
    assert refused.value.operations == [b.id]
    assert cloud.run(lambda c: operations.steps_of(c, [a.id, b.id])) == {a.id: [], b.id: []}
    cloud.run(lambda c: operations.begin_steps(c, [(a, 1, "place", "", ""), (b, 1, "place", "", "")]))
    cloud.run(lambda c: operations.end_steps(c, [(a, 1, True, None), (b, 1, False, {"seen": 1})]))
    found = cloud.run(lambda c: operations.steps_of(c, [a.id, b.id]))
    assert [(s.state, s.changed) for one in (a, b) for s in found[one.id]] == [
        (StepState.DONE, True), (StepState.DONE, False),
    ]  # fmt: skip


def test_one_unfinished_operation_per_subject(cloud: Rig) -> None:
    cloud.deploy("a")
    (stop,) = cloud.submit(Verb.SHUTDOWN, {"instances": ["a"]}).operations
    with pytest.raises(Conflict, match=stop.id):
        cloud.submit(Verb.START, {"instances": ["a"]})
    t = tables.operation
    with pytest.raises((sa.exc.IntegrityError, Conflict)):  # the index holds it where the code would not
        cloud.run(lambda c: c.execute(sa.insert(t).from_select(
            [col.name for col in t.c],
            sa.select(*[sa.literal(new_id()) if col.name == "id" else col for col in t.c]).where(t.c.id == stop.id),
        )))  # fmt: skip
    (running,) = cloud.claim()
    cloud.end([running], InstanceState.OFF)
    assert cloud.submit(Verb.START, {"instances": ["a"]}).operations[0].verb is Verb.START


def test_delete_cancels_what_runs_and_waits_for_its_compensation(cloud: Rig) -> None:
    (deploy,) = claimed(cloud, "a")
    cloud.place([deploy])
    (delete,) = cloud.submit(Verb.DELETE, {"instances": ["a"]}).operations
    assert delete.after_id == deploy.id
    assert cloud.run(lambda c: operations.is_cancelled(c, deploy))
    assert cloud.claim() == [], "it waits"
    again = cloud.submit(Verb.DELETE, {"instances": ["a"]})
    assert [op.id for op in again.operations] == [delete.id]
    with pytest.raises(Conflict):
        cloud.submit(Verb.SHUTDOWN, {"instances": ["a"]})
    cloud.end([deploy], InstanceState.FAILED, OperationState.COMPENSATED)
    (due,) = cloud.claim()
    assert due.id == delete.id
    assert due.epoch > deploy.epoch, "so that late writes of the deploy lose"


def test_delete_of_what_nobody_runs_yet_cancels_it_at_once(cloud: Rig) -> None:
    (deploy,) = cloud.ask("a")
    (delete,) = cloud.submit(Verb.DELETE, {"instances": ["a"]}).operations
    assert (delete.after_id, cloud.get(deploy).state) == (None, OperationState.CANCELLED)
    assert cloud.show("a")["state"] == InstanceState.FAILED
    assert [op.id for op in cloud.claim()] == [delete.id]


def test_a_waiting_deploy_that_left_something_on_a_host_is_undone_before_it_ends(cloud: Rig) -> None:
    (deploy,) = claimed(cloud, "a")
    cloud.place([deploy])
    cloud.run(lambda c: operations.postpone(c, deploy, "h1 is silent", now() + timedelta(hours=1)))
    cloud.run(lambda c: operations.cancel(c, cloud.admin, deploy.id))
    (due,) = cloud.claim()
    assert (due.id, due.cancel_requested) == (deploy.id, True)


def test_deploys_wait_for_the_import_of_their_image(cloud: Rig) -> None:
    cloud.submit(Verb.IMPORT, {"images": [{"name": "late", "source": "/late.qcow2"}]})
    (deploy,) = cloud.ask("a", image="late")
    (imported,) = cloud.claim()
    assert imported.verb is Verb.IMPORT
    assert deploy.after_id == imported.id
    assert cloud.claim() == []
    cloud.run(lambda c: operations.finish(c, imported, OperationState.FAILED, error=HostFault("disk is full")))
    assert [op.id for op in cloud.claim()] == [deploy.id]
    t = tables.image
    state = cloud.run(lambda c: c.execute(sa.select(t.c.state).where(t.c.name == "late")).scalar_one())
    assert state == ImageState.FAILED


def test_of_several_that_wait_for_one_subject_one_goes_on(cloud: Rig) -> None:
    first, second, third = (
        cloud.submit(Verb.STAGE, {"image": "tiny"}).operations[0].id for _ in range(3)
    )
    for expected in (first, second, third):
        (op,) = cloud.claim()
        assert op.id == expected
        cloud.run(lambda c, op=op: operations.finish(c, op, OperationState.DONE))  # type: ignore[misc]
    assert cloud.claim() == []


def test_ends_are_told_and_free_the_subject(cloud: Rig) -> None:
    a, b = claimed(cloud, "a", "b")
    cloud.run(lambda c: operations.finish_all(
        c, [(a, OperationState.DONE, None), (b, OperationState.HELD, HostFault("look at it", "host/h1"))]
    ))  # fmt: skip
    done, held = cloud.get(a), cloud.get(b)
    assert (done.state, done.claimed_by, done.finished_at is None) == (OperationState.DONE, None, False)
    assert held.error is not None
    assert (held.reason, held.error["code"]) == ("look at it", "host-fault")
    told = {e["name"]: (e["state"], e["error"]) for e in cloud.events("operation") if e["verb"] == "deploy"}
    assert told == {"a": ("done", None), "b": ("held", "host-fault")}
    with pytest.raises(Stale):
        cloud.run(lambda c: operations.finish(c, a, OperationState.FAILED))


def test_cancel_is_refused_for_what_has_ended_and_for_others(cloud: Rig) -> None:
    (op,) = claimed(cloud, "a")
    assert cloud.run(lambda c: operations.cancel(c, cloud.admin, op.id)).cancel_requested
    eve = cloud.user("eve")
    with pytest.raises(Exception, match="may not"):
        cloud.run(lambda c: operations.cancel(c, eve, op.id))
    cloud.end([op], InstanceState.FAILED, OperationState.CANCELLED)
    with pytest.raises(Conflict, match="has ended"):
        cloud.run(lambda c: operations.cancel(c, cloud.admin, op.id))
