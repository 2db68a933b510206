"""Record against world: what is found, what is taken over, what is left alone."""

from __future__ import annotations

from datetime import datetime

import pytest

from control import drift, hosts, instances, lifecycle, reconcile
from control.reconcile import Expected, Finding
from core.clock import now
from core.ids import new_id, on_host
from core.states import InstanceState as S
from core.states import PowerState, Verb
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
        (S.RUNNING, P.PAUSED, ("paused", "alert", Verb.RESUME)),
        (S.RUNNING, P.UNKNOWN, None),
        (S.RUNNING, None, ("missing", "alert", None)),
        (S.OFF, P.STOPPED, None),
        (S.OFF, P.RUNNING, ("running", "adopt", Verb.SHUTDOWN)),
        (S.OFF, P.PAUSED, ("paused", "alert", Verb.POWEROFF)),
        (S.OFF, None, ("missing", "alert", None)),
        (S.SUSPENDED, P.PAUSED, None),
        (S.SUSPENDED, P.RUNNING, ("running", "adopt", Verb.SUSPEND)),
        (S.SUSPENDED, P.STOPPED, ("memory-lost", "alert", Verb.START)),
        (S.SUSPENDED, P.CRASHED, ("memory-lost", "alert", Verb.START)),
        (S.SUSPENDED, None, ("missing", "alert", None)),
        (S.HELD, P.STOPPED, None),
        (S.HELD, P.RUNNING, None),
        (S.HELD, None, ("missing", "alert", None)),
        (S.FAILED, None, None),
        (S.STAGING, None, None),
    ],
)
def test_what_state_and_power_mean(state: S, power: P | None, found: tuple[str, str, Verb | None] | None) -> None:
    seen = [] if power is None else [(on_host(ONE), power)]
    findings = reconcile.compare([expected(state)], seen)
    assert [(one.kind, one.policy, one.verb) for one in findings] == ([found] if found else [])
    assert reconcile.compare([expected(state, busy=True)], seen) == []


def test_what_a_host_says_of_it_is_kept() -> None:
    name = on_host(ONE)
    (one,) = reconcile.compare([expected(S.RUNNING)], [(name, P.PAUSED)], None, {name: "its datastore is full"})
    assert one.seen == {"power": "paused", "reason": "its datastore is full"}


def test_every_verb_that_repairs_may_be_asked_for_in_the_state_that_the_record_then_has() -> None:
    for (state, _), rule in reconcile.RULES.items():
        if rule.verb is not None:
            assert (rule.certain or state) in lifecycle.VERBS[rule.verb].allowed_from, rule


def test_what_is_not_ours_is_told_apart() -> None:
    other = new_id()
    seen = [("somebodys-vm", P.RUNNING), ("rf-notanid", P.RUNNING), (on_host(other), P.RUNNING)]
    assert [(one.kind, one.instance_id, one.policy) for one in reconcile.compare([], seen)] == [
        ("unknown", other, "alert"), ("foreign", "", "ignore"), ("foreign", "", "ignore"),
    ]  # fmt: skip


def test_adopted_ones_are_known_by_their_own_name() -> None:
    one = Expected(ONE, "web", S.RUNNING, 3, False, "old-vm")
    assert reconcile.compare([one], [("old-vm", P.RUNNING)], {"old-vm": ONE}) == []
    assert [f.kind for f in reconcile.compare([one], [("old-vm", P.STOPPED)], {"old-vm": ONE})] == ["stopped"]
    assert [(f.kind, f.instance_id) for f in reconcile.compare([], [("old-vm", P.RUNNING)], {"old-vm": ONE})] == [
        ("unknown", ONE)
    ]


class Looks:
    """Looks at h1, in two halves as a task makes them."""

    def __init__(self, cloud: Rig) -> None:
        self.cloud = cloud
        self.host_id = cloud.run(lambda c: hosts.get(c, "h1")).id

    def before(self) -> list[Expected]:
        return self.cloud.run(lambda c: reconcile.expected_on(c, [self.host_id])[self.host_id])

    def after(
        self, before: list[Expected], seen: list[tuple[str, PowerState]], since: datetime | None = None
    ) -> list[Finding]:
        findings = reconcile.compare(before, seen)
        return self.cloud.run(lambda c: reconcile.record_findings(c, self.host_id, "h1", findings, since))

    def at_once(self, *powers: PowerState) -> list[Finding]:
        """Look, with these powers of what is expected."""
        before = self.before()
        return self.after(before, [(e.on_host, p) for e, p in zip(before, powers, strict=True) if p is not P.ABSENT])

    def drift(self, state: str | None = "open") -> list[tuple[str, str, str]]:
        rows = self.cloud.run(lambda c: drift.list_(c, self.cloud.admin, state=state))
        return [(row["kind"], row["policy"], row["state"]) for row in rows]

    def choose(self, policy: str) -> None:
        (row,) = self.cloud.run(lambda c: drift.list_(c, self.cloud.admin))
        self.cloud.run(lambda c: drift.set_policy(c, self.cloud.admin, row["id"], policy))


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
        gone: ("residue", "repair"), elsewhere: ("misplaced", "alert"), stranger: ("unknown", "alert"),
    }  # fmt: skip
    owed = cloud.run(lambda c: drift.residues(c, "h1"))
    assert [one.instance_id for one in owed] == [gone]


def test_what_is_on_the_host_again_is_not_owed(cloud: Rig, looks: Looks) -> None:
    subject = f"instance/{looks.before()[0].instance_id}"
    cloud.run(lambda c: drift.open_(
        c, subject=subject, host="h1", kind=drift.RESIDUE, recorded={}, seen={}, policy="repair"
    ))  # fmt: skip
    assert cloud.run(lambda c: drift.residues(c, "h1")) == [], "the record has it there"
    cloud.submit(Verb.DELETE, {"instances": ["web"]})
    assert cloud.run(lambda c: drift.residues(c, "h1")) == [], "an operation is changing it"
    (op,) = cloud.claim()
    cloud.run(lambda c: instances.mark_deleted(c, op, op.subject_id))
    cloud.end([op], S.DELETED)
    assert len(cloud.run(lambda c: drift.residues(c, "h1"))) == 1


def test_users_see_the_drift_of_their_own(cloud: Rig, looks: Looks) -> None:
    looks.after(looks.before(), [])
    assert cloud.run(lambda c: drift.list_(c, cloud.user("eve"))) == []
    assert cloud.claim() == []


# policies


def test_what_runs_though_the_record_says_off_is_taken_over(cloud: Rig, looks: Looks) -> None:
    looks.at_once(P.STOPPED)
    assert cloud.show("web")["state"] == "off"
    assert [f.policy for f in looks.at_once(P.RUNNING)] == ["adopt"]
    assert cloud.show("web")["state"] == "running"
    assert looks.at_once(P.RUNNING) == []
    assert looks.drift() == []


def test_what_people_ignore_is_left_alone_in_later_looks(cloud: Rig, looks: Looks) -> None:
    looks.at_once(P.PAUSED)
    assert looks.drift() == [("paused", "alert", "open")]
    looks.choose("ignore")
    for _ in range(3):
        assert [f.policy for f in looks.at_once(P.PAUSED)] == ["ignore"]
    assert looks.drift() == [("paused", "ignore", "open")]
    assert cloud.show("web")["state"] == "running"
    looks.at_once(P.RUNNING)
    assert looks.drift(None) == [("paused", "ignore", "gone")]


def test_a_lost_one_that_is_ignored_is_not_held(cloud: Rig, looks: Looks) -> None:
    cloud.run(lambda c: drift.open_(
        c, subject=f"instance/{looks.before()[0].instance_id}", host="h1", kind="missing", recorded={}, seen={},
        policy="ignore",
    ))  # fmt: skip
    looks.at_once(P.ABSENT)
    assert cloud.show("web")["state"] == "running"


def test_a_policy_decides_whether_the_record_or_the_world_gives_way(cloud: Rig, looks: Looks) -> None:
    looks.at_once(P.PAUSED)
    looks.choose("repair")
    assert [(f.policy, f.verb) for f in looks.at_once(P.PAUSED)] == [("repair", Verb.RESUME)]
    looks.choose("adopt")
    looks.at_once(P.PAUSED)
    assert cloud.show("web")["state"] == "suspended"
    assert looks.at_once(P.PAUSED) == []


def test_a_repair_under_way_keeps_its_drift_open(cloud: Rig, looks: Looks) -> None:
    looks.at_once(P.STOPPED)
    cloud.submit(Verb.START, {"instances": ["web"]})
    looks.at_once(P.STOPPED)
    assert looks.drift() == [("stopped", "repair", "open")]
    cloud.end(cloud.claim(), S.RUNNING)
    looks.at_once(P.RUNNING)
    assert looks.drift(None) == [("stopped", "repair", "repaired")]


def test_foreign_ones_are_drift_that_nobody_minds(cloud: Rig, looks: Looks) -> None:
    mine = (looks.before()[0].on_host, P.RUNNING)
    looks.after(looks.before(), [mine, ("old-vm", P.RUNNING), ("older-vm", P.STOPPED)])
    looks.after(looks.before(), [mine, ("old-vm", P.STOPPED)])
    rows = cloud.run(lambda c: drift.list_(c, cloud.admin))
    assert [(row["subject"], row["kind"], row["policy"]) for row in rows] == [("foreign/old-vm", "foreign", "ignore")]


def test_a_look_at_the_old_host_from_before_a_move_says_nothing(cloud: Rig, looks: Looks) -> None:
    """It was read after the record had switched, and seen before its source was cleared."""
    (moved,) = cloud.deploy("moved", requirements={"host": "h2"})
    web = (looks.before()[0].on_host, P.RUNNING)
    before = looks.before()
    since = now()
    cloud.submit(Verb.SHUTDOWN, {"instances": ["moved"]})  # something ended in between, whatever it was
    cloud.end(cloud.claim(), S.OFF)
    assert looks.after(before, [web, (on_host(moved), P.RUNNING)], since) == []
    assert looks.drift() == []
    assert [f.kind for f in looks.after(looks.before(), [web, (on_host(moved), P.RUNNING)], now())] == ["misplaced"]


def test_what_is_parked_has_nothing_on_hosts(cloud: Rig, looks: Looks) -> None:
    cloud.submit(Verb.UNDEPLOY, {"instances": ["web"]})
    (op,) = cloud.claim()
    cloud.run(lambda c: instances.free(c, op, op.subject_id))
    cloud.end([op], S.UNDEPLOYED)
    name = on_host(op.subject_id)
    assert [(f.kind, f.policy) for f in looks.after([], [(name, P.RUNNING)])] == [("residue", "alert")]
    assert cloud.run(lambda c: drift.residues(c, "h1")) == [], "somebody has started it: it may be newer"
    looks.choose("repair")
    assert len(cloud.run(lambda c: drift.residues(c, "h1"))) == 1


def test_nothing_goes_where_something_of_it_is_left(cloud: Rig, looks: Looks) -> None:
    (op,) = cloud.ask("new", requirements={"host": "h1"})
    cloud.run(lambda c: drift.open_(
        c, subject=op.subject, host="h1", kind=drift.RESIDUE, recorded={}, seen={}, policy="repair"
    ))  # fmt: skip
    (claimed,) = cloud.claim()
    (outcome,) = cloud.place([claimed])
    assert outcome.host is None


def test_instances_of_a_silent_host_say_so(cloud: Rig, looks: Looks) -> None:
    cloud.run(lambda c: reconcile.note_silence(c, looks.host_id, "h1", "noon"))
    assert (cloud.show("web")["state"], cloud.show("web")["reason"]) == (
        "running", "host h1 does not answer since noon",
    )  # fmt: skip
    cloud.run(lambda c: reconcile.end_silence(c, looks.host_id, "h1"))
    assert cloud.show("web")["reason"] in ("", None)
