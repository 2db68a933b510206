"""Record against world: what is found, what is taken over, what is left alone."""

from __future__ import annotations

import pytest

from control import drift, hosts, reconcile
from control.reconcile import Expected, Finding
from core.ids import new_id, on_host
from core.states import InstanceState as S
from core.states import OperationState, PowerState, Verb
from core.states import PowerState as P
from tests.rig import Rig

ONE = new_id()


def expected(state: S, *, busy: bool = False) -> Expected:
    return Expected(ONE, "web", state, 3, busy)


@pytest.mark.parametrize(
    ("state", "power", "found"),
    [
        (S.RUNNING, P.RUNNING, None),
        (S.RUNNING, P.STOPPED, ("stopped", "repair", Verb.START)),
        (S.RUNNING, P.CRASHED, ("stopped", "repair", Verb.START)),
        (S.RUNNING, P.PAUSED, ("paused", "report", None)),
        (S.RUNNING, P.UNKNOWN, None),
        (S.RUNNING, None, ("missing", "report", None)),
        (S.OFF, P.STOPPED, None),
        (S.OFF, P.RUNNING, ("running", "report", None)),
        (S.OFF, None, ("missing", "report", None)),
        (S.HELD, P.STOPPED, None),
        (S.HELD, None, ("missing", "report", None)),
        (S.FAILED, None, None),
        (S.STAGING, None, None),
    ],
)
def test_what_state_and_power_mean(state: S, power: P | None, found: tuple[str, str, Verb | None] | None) -> None:
    seen = [] if power is None else [(on_host(ONE), power)]
    findings = reconcile.compare([expected(state)], seen)
    assert [(one.kind, one.policy, one.verb) for one in findings] == ([found] if found else [])
    assert reconcile.compare([expected(state, busy=True)], seen) == []


def test_what_is_not_ours_is_none_of_our_business() -> None:
    other = new_id()
    seen = [("somebodys-vm", P.RUNNING), ("rf-notanid", P.RUNNING), (on_host(other), P.RUNNING)]
    assert [(one.kind, one.instance_id) for one in reconcile.compare([], seen)] == [("unknown", other)]


class Looks:
    """Looks at h1, in two halves as a task makes them."""

    def __init__(self, cloud: Rig) -> None:
        self.cloud = cloud
        self.host_id = cloud.run(lambda c: hosts.get(c, "h1")).id

    def before(self) -> list[Expected]:
        return self.cloud.run(lambda c: reconcile.expected_on(c, self.host_id))

    def after(self, before: list[Expected], seen: list[tuple[str, PowerState]]) -> list[Finding]:
        findings = reconcile.compare(before, seen)
        return self.cloud.run(lambda c: reconcile.record_findings(c, self.host_id, "h1", findings))


@pytest.fixture
def looks(cloud: Rig) -> Looks:
    cloud.deploy("web", requirements={"host": "h1"})
    return Looks(cloud)


def test_an_old_look_does_not_overrule_a_newer_change(cloud: Rig, looks: Looks) -> None:
    """The host was looked at while web was stopped; it was started before the look was written down."""
    before = looks.before()
    cloud.submit(Verb.SHUTDOWN, {"instances": ["web"]})
    cloud.end(cloud.claim(), S.OFF)
    cloud.submit(Verb.START, {"instances": ["web"]})
    cloud.end(cloud.claim(), S.RUNNING)
    assert looks.after(before, [(on_host(before[0].instance_id), P.STOPPED)]) == []
    assert cloud.show("web")["state"] == "running"


def test_what_is_being_changed_is_left_alone(cloud: Rig, looks: Looks) -> None:
    before = looks.before()
    cloud.submit(Verb.SHUTDOWN, {"instances": ["web"]})
    assert looks.before()[0].busy
    assert looks.after(before, [(on_host(before[0].instance_id), P.STOPPED)]) == []


def test_a_lost_instance_is_held_until_somebody_decides(cloud: Rig, looks: Looks) -> None:
    (found,) = looks.after(looks.before(), [])
    assert (found.kind, found.verb) == ("missing", None)
    shown = cloud.show("web")
    assert (shown["state"], shown["reason"]) == ("held", "not found on h1: its disks may be lost")
    looks.after(looks.before(), [])
    rows = cloud.run(lambda c: drift.list_(c, cloud.admin))
    assert [(row["kind"], row["name"]) for row in rows] == [("missing", "web")], "one row, however often it is seen"
    cloud.delete("web")
    looks.after(looks.before(), [])
    assert cloud.run(lambda c: drift.list_(c, cloud.admin)) == []
    assert [row["state"] for row in cloud.run(lambda c: drift.list_(c, cloud.admin, state=None))] == ["gone"]


def test_leftovers_are_owed_and_strangers_are_reported(cloud: Rig, looks: Looks) -> None:
    (gone,) = cloud.deploy("gone", requirements={"host": "h1"})
    (elsewhere,) = cloud.deploy("elsewhere", requirements={"host": "h2"})
    cloud.delete("gone")
    stranger = new_id()
    web = looks.before()[0].instance_id
    seen = [(on_host(one), P.RUNNING) for one in (web, gone, elsewhere, stranger)]
    found = {one.instance_id: (one.kind, one.policy) for one in looks.after(looks.before(), seen)}
    assert found == {
        gone: ("residue", "repair"), elsewhere: ("misplaced", "report"), stranger: ("unknown", "report"),
    }  # fmt: skip
    owed = cloud.run(lambda c: drift.residues(c, "h1"))
    assert [one.instance_id for one in owed] == [gone]


def test_what_is_placed_on_the_host_again_is_not_owed(cloud: Rig, looks: Looks) -> None:
    cloud.ask("new", requirements={"host": "h1"})
    (op,) = cloud.claim()
    cloud.run(lambda c: drift.open_(
        c, subject=op.subject, host="h1", kind=drift.RESIDUE, recorded={}, seen={}, policy="repair"
    ))  # fmt: skip
    assert cloud.run(lambda c: drift.residues(c, "h1")) == [], "an operation is changing it"
    cloud.place([op])
    cloud.end([op], S.RUNNING, OperationState.DONE)
    assert cloud.run(lambda c: drift.residues(c, "h1")) == []
    cloud.delete("new")
    assert len(cloud.run(lambda c: drift.residues(c, "h1"))) == 1


def test_users_see_the_drift_of_their_own(cloud: Rig, looks: Looks) -> None:
    looks.after(looks.before(), [])
    assert cloud.run(lambda c: drift.list_(c, cloud.user("eve"))) == []
    assert cloud.claim() == []
