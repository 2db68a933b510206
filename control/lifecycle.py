"""The lifecycle of an instance as a table: which verb is allowed when, by which steps, what undoes them, what follows.

`tasks/actions.py` has one action per step and one per compensation; `docs/lifecycle.md` and its picture are written
from this table (a test holds all three together).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from core.errors import Conflict, Unsupported
from core.states import InstanceState as S
from core.states import StepState, Verb


class NoReturn(StrEnum):
    """From when on an operation only goes forward: as soon as the step has begun, or once it is done."""

    BEGUN = "begun"  # it takes the last copy of something away
    DONE = "done"  # afterwards going back would lose what the guest does


@dataclass(frozen=True)
class StepRule:
    """One step. compensation: what undoes it, "" = nothing to undo. during: the state while it runs, None: the verb's.

    on_target: it works on the host that the instance goes to.
    """

    name: str
    compensation: str = ""
    during: S | None = None
    no_return: NoReturn | None = None
    on_target: bool = False


@dataclass(frozen=True)
class VerbRule:
    """allowed_from: states in which it may be asked for. during, done, failed: None = the state it was in before.

    failed: after it was given up and undone. needs: capability flag that the host must have. moves: the instance may
    be on no host, or comes to another one.
    """

    allowed_from: frozenset[S]
    steps: tuple[StepRule, ...]
    during: S | None = None
    done: S | None = None
    failed: S | None = None
    needs: str = ""
    moves: bool = False


BEGUN = (StepState.DONE, StepState.FAILED, StepState.RUNNING)  # steps that may have done something

ON_HOST = frozenset({S.RUNNING, S.SUSPENDED, S.OFF})
RUNS_OR_OFF = frozenset({S.RUNNING, S.OFF})
RUNNING = frozenset({S.RUNNING})
PARKED = frozenset({S.STOPPED, S.UNDEPLOYED})
LASTING = frozenset({S.PENDING, S.ON_HOLD, *ON_HOST, *PARKED, S.HELD, S.FAILED, S.DELETED})
PASSING = frozenset(S) - LASTING

_PLACE = StepRule("place", "release")
_IMAGE = StepRule("image")
_DEFINE = StepRule("define", "undefine")
_PARK = StepRule("park", "drop-parked")
_CLEAR = StepRule("clear", no_return=NoReturn.BEGUN)
_UNPARK = StepRule("unpark", "delete-volumes")
_FREE = StepRule("free", no_return=NoReturn.BEGUN)
_DROP_PARKED = StepRule("drop-parked", no_return=NoReturn.BEGUN)
_RESERVE = StepRule("reserve", "unreserve")
_TARGET_IMAGE = StepRule("target-image", on_target=True)
_TARGET_DEFINE = StepRule("target-define", "target-undefine", on_target=True)
_SWITCH = StepRule("switch", "switch-back")
_RESERVE_MORE = StepRule("reserve-more", "reserve-less")
_APPLY = StepRule("apply", "apply-before")
_RECORD = StepRule("record", no_return=NoReturn.DONE)
_DROP_SCRATCH = StepRule("drop-scratch")

VERBS: dict[Verb, VerbRule] = {
    # Something that is so already may be asked for: the step observes and changes nothing. An instance that failed to
    # deploy has nothing on a host that could start.
    Verb.DEPLOY: VerbRule(
        frozenset({S.PENDING}),
        (_PLACE, _IMAGE, StepRule("volumes", "delete-volumes"), _DEFINE, StepRule("start", "poweroff", S.STARTING)),
        S.STAGING, S.RUNNING, S.FAILED, moves=True,
    ),
    Verb.START: VerbRule(frozenset({S.OFF, S.RUNNING, S.HELD}), (StepRule("start"),), S.STARTING, S.RUNNING, S.OFF),
    Verb.SHUTDOWN: VerbRule(
        frozenset({S.RUNNING, S.OFF, S.HELD}), (StepRule("stop"),), S.SHUTTING_DOWN, S.OFF, S.RUNNING
    ),
    Verb.POWEROFF: VerbRule(
        frozenset({*ON_HOST, S.HELD}), (StepRule("poweroff"),), S.SHUTTING_DOWN, S.OFF, S.RUNNING
    ),
    Verb.REBOOT: VerbRule(RUNNING, (StepRule("reboot"),), S.STARTING, S.RUNNING, S.RUNNING, "reboot"),
    Verb.SUSPEND: VerbRule(
        frozenset({S.RUNNING, S.SUSPENDED}), (StepRule("suspend", "resume"),), S.SUSPENDING, S.SUSPENDED,
        needs="suspend",
    ),
    Verb.RESUME: VerbRule(
        frozenset({S.RUNNING, S.SUSPENDED}), (StepRule("resume", "suspend"),), S.RESUMING, S.RUNNING, needs="suspend",
    ),
    Verb.STOP: VerbRule(
        frozenset({S.RUNNING, S.SUSPENDED}), (StepRule("save", "unsave"), _PARK, _CLEAR, _FREE),
        S.STOPPING, S.STOPPED, None, "save",
    ),
    Verb.RESTORE: VerbRule(
        frozenset({S.STOPPED}),
        (_PLACE, _IMAGE, _UNPARK, _DEFINE, StepRule("restore", "poweroff", no_return=NoReturn.DONE), _DROP_PARKED),
        S.RESTORING, S.RUNNING, S.STOPPED, moves=True,
    ),
    Verb.UNDEPLOY: VerbRule(
        frozenset(ON_HOST), (StepRule("stop", "start-again"), _PARK, _CLEAR, _FREE), S.UNDEPLOYING, S.UNDEPLOYED
    ),
    Verb.REDEPLOY: VerbRule(
        frozenset({S.UNDEPLOYED}),
        (_PLACE, _IMAGE, _UNPARK, _DEFINE, StepRule("start", "poweroff", S.STARTING, NoReturn.DONE), _DROP_PARKED),
        S.STAGING, S.RUNNING, S.UNDEPLOYED, moves=True,
    ),
    Verb.MIGRATE: VerbRule(
        RUNS_OR_OFF,
        (
            _RESERVE, _TARGET_IMAGE, StepRule("stop", "start-again"),
            StepRule("carry", "drop-target", on_target=True), _TARGET_DEFINE, _SWITCH,
            StepRule("start-again", "poweroff", no_return=NoReturn.DONE),
            StepRule("clear-source", no_return=NoReturn.BEGUN), StepRule("unreserve"),
        ),
        S.MIGRATING, moves=True,
    ),
    # The copies of the source go away only after the record has the instance on the target, where it was seen to run.
    Verb.MIGRATE_LIVE: VerbRule(
        RUNNING,
        (
            _RESERVE, _TARGET_IMAGE, StepRule("target-volumes", "drop-target", on_target=True),
            StepRule("transfer", no_return=NoReturn.DONE), _SWITCH,
            StepRule("clear-source", no_return=NoReturn.BEGUN), StepRule("unreserve"),
        ),
        S.MIGRATING, S.RUNNING, S.RUNNING, "migrate_live", moves=True,
    ),
    Verb.RENAME: VerbRule(frozenset(RUNS_OR_OFF | PARKED), (_APPLY, _RECORD)),
    Verb.RESIZE: VerbRule(frozenset(RUNS_OR_OFF | {S.UNDEPLOYED}), (_RESERVE_MORE, _APPLY, _RECORD), S.RESIZING),
    Verb.ATTACH_DISK: VerbRule(
        RUNS_OR_OFF, (_RESERVE_MORE, StepRule("add-volume", "drop-volume"), _APPLY, _RECORD), S.CHANGING_DISKS
    ),
    Verb.DETACH_DISK: VerbRule(
        RUNS_OR_OFF, (_APPLY, _RECORD, StepRule("drop-volume", no_return=NoReturn.BEGUN)), S.CHANGING_DISKS
    ),
    Verb.GROW_DISK: VerbRule(
        RUNS_OR_OFF, (_RESERVE_MORE, StepRule("grow-volume"), _APPLY, _RECORD), S.CHANGING_DISKS
    ),
    Verb.ATTACH_NIC: VerbRule(RUNS_OR_OFF, (_RESERVE_MORE, _APPLY, _RECORD), S.CHANGING_NICS),
    Verb.DETACH_NIC: VerbRule(RUNS_OR_OFF, (_APPLY, _RECORD), S.CHANGING_NICS),
    Verb.SNAPSHOT: VerbRule(
        RUNS_OR_OFF, (StepRule("snapshot", "drop-snapshot"),), S.SNAPSHOTTING, needs="snapshot"
    ),
    Verb.REVERT: VerbRule(
        RUNS_OR_OFF, (StepRule("revert", no_return=NoReturn.BEGUN),), S.SNAPSHOTTING, needs="snapshot"
    ),
    Verb.DROP_SNAPSHOT: VerbRule(
        ON_HOST, (StepRule("drop-snapshot", no_return=NoReturn.BEGUN),), S.SNAPSHOTTING, needs="snapshot"
    ),
    Verb.SAVE_IMAGE: VerbRule(
        RUNS_OR_OFF,
        (StepRule("copy-disk", "drop-scratch"), StepRule("fetch-image", "drop-image"), _DROP_SCRATCH), S.SAVING_IMAGE,
    ),
    Verb.BACKUP: VerbRule(
        RUNS_OR_OFF,
        (
            StepRule("backup", "drop-scratch"), StepRule("fetch-backup", "drop-backup"), _DROP_SCRATCH,
            StepRule("prune", no_return=NoReturn.BEGUN),
        ),
        S.BACKING_UP, needs="backup",
    ),
    Verb.REVERT_BACKUP: VerbRule(
        RUNS_OR_OFF,
        (
            StepRule("stop", "start-again"), StepRule("restore-volumes", "restore-before"),
            StepRule("start-again", "poweroff", no_return=NoReturn.DONE), StepRule("drop-before"),
        ),
        S.REVERTING, needs="backup",
    ),
    Verb.FAILOVER: VerbRule(
        frozenset({S.RUNNING, S.SUSPENDED, S.OFF, S.HELD}),
        (
            _RESERVE, _TARGET_DEFINE, _SWITCH,
            StepRule("start-again", "poweroff", no_return=NoReturn.DONE), StepRule("unreserve"),
        ),
        S.MIGRATING, moves=True,
    ),
    # Once started, a delete is never undone.
    Verb.DELETE: VerbRule(
        frozenset(set(S) - {S.DELETED}),
        (
            StepRule("stop", no_return=NoReturn.BEGUN), StepRule("undefine"), StepRule("delete-volumes"),
            StepRule("drop-parked"), StepRule("release"),
        ),
        S.DELETING, S.DELETED, moves=True,
    ),
}  # fmt: skip
# An operation that waits for the operator leaves its instance HELD, whatever the verb.

# What people say, and the verb that it means in each state.
WORDS: dict[str, dict[S, Verb]] = {
    "start": {
        S.OFF: Verb.START, S.RUNNING: Verb.START, S.HELD: Verb.START, S.SUSPENDED: Verb.RESUME,
        S.STOPPED: Verb.RESTORE, S.UNDEPLOYED: Verb.REDEPLOY,
    },
    "resume": {
        S.RUNNING: Verb.RESUME, S.SUSPENDED: Verb.RESUME, S.STOPPED: Verb.RESTORE, S.UNDEPLOYED: Verb.REDEPLOY,
    },
}  # fmt: skip


def rule(verb: Verb) -> VerbRule:
    """Return the rule of a verb on instances. Raise Unsupported for other verbs."""
    found = VERBS.get(verb)
    if found is None:
        raise Unsupported(f"{verb} is not a verb of instances", evidence={"verbs": [str(v) for v in VERBS]})
    return found


def step_rule(verb: Verb, name: str) -> tuple[int, StepRule]:
    """Return a step's place in its verb, counted from 1, and its rule. Raise LookupError."""
    for sequence, step in enumerate(rule(verb).steps, 1):
        if step.name == name:
            return sequence, step
    raise LookupError(f"{verb} has no step {name}")


def no_return(verb: Verb, states: Mapping[str, StepState]) -> str | None:
    """Return the step, by the ledger alone, after which an operation only goes forward; None: it may be undone."""
    for step in rule(verb).steps:
        state = states.get(step.name)
        if state in BEGUN and step.no_return and (step.no_return is NoReturn.BEGUN or state is StepState.DONE):
            return step.name
    return None


def meant(word: str, state: S, name: str) -> Verb:
    """Return the verb that a word means for an instance in this state. Raise Conflict where it means none."""
    by_state = WORDS.get(word)
    if by_state is None:
        return Verb(word)
    if state not in by_state:
        raise _not_now(word, state, name, frozenset(by_state))
    return by_state[state]


def check_allowed(verb: Verb, state: S, name: str) -> None:
    """Raise Conflict when an instance in this state cannot be asked for this verb."""
    allowed = rule(verb).allowed_from
    if state not in allowed:
        raise _not_now(verb, state, name, allowed)


def _not_now(word: str, state: S, name: str, allowed: frozenset[S]) -> Conflict:
    lasting = sorted(allowed & LASTING)
    words = sorted(set(_ways_to(allowed, state)))
    fix = f"rackflow instance {words[0]} {name}" if words else ""
    return Conflict(
        f"instance {name} is {state}: {word} is possible when it is {' or '.join(lasting)}", f"instance/{name}",
        {"state": str(state), "allowed_from": lasting}, fix,
    )  # fmt: skip


def _ways_to(wanted: frozenset[S], state: S) -> Iterator[str]:
    """Yield words that lead from a state straight to one of those wanted."""
    for word, by_state in WORDS.items():
        verb = by_state.get(state)
        if verb is not None and VERBS[verb].done in wanted:
            yield word
    for verb in (Verb.SHUTDOWN, Verb.SUSPEND):
        if state in VERBS[verb].allowed_from and VERBS[verb].done in wanted:
            yield verb


def state_after(verb: Verb, before: S, *, well: bool) -> S:
    """Return the state that an operation leaves its instance in when it has ended well, or was given up and undone."""
    found = rule(verb)
    return (found.done if well else found.failed) or before
