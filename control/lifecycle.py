"""The lifecycle of an instance as a table: which verb is allowed when, by which steps, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import Conflict, Unsupported
from core.states import InstanceState as S
from core.states import Verb


@dataclass(frozen=True)
class StepRule:
    """One step. compensation: the step that undoes it, "" = nothing to undo. during: the state while it runs."""

    name: str
    compensation: str = ""
    during: S | None = None  # None: the verb's


@dataclass(frozen=True)
class VerbRule:
    """allowed_from: states in which the verb may be asked for; failed: the state after it was given up."""

    allowed_from: frozenset[S]
    during: S
    done: S
    failed: S
    steps: tuple[StepRule, ...]


VERBS: dict[Verb, VerbRule] = {
    Verb.DEPLOY: VerbRule(
        frozenset({S.PENDING}), S.STAGING, S.RUNNING, S.FAILED,
        (
            StepRule("place", "release"),
            StepRule("image"),
            StepRule("volumes", "delete-volumes"),
            StepRule("define", "undefine"),
            StepRule("start", "stop", S.STARTING),
        ),
    ),
    # An instance that runs may be asked to start: the step observes and changes nothing. One that failed to deploy
    # has nothing on a host that could start.
    Verb.START: VerbRule(
        frozenset({S.OFF, S.RUNNING, S.HELD}), S.STARTING, S.RUNNING, S.OFF, (StepRule("start"),)
    ),
    Verb.SHUTDOWN: VerbRule(
        frozenset({S.RUNNING, S.OFF, S.HELD}), S.SHUTTING_DOWN, S.OFF, S.RUNNING, (StepRule("stop"),)
    ),
    Verb.DELETE: VerbRule(
        frozenset(set(S) - {S.DELETED}), S.DELETING, S.DELETED, S.FAILED,
        (StepRule("stop"), StepRule("undefine"), StepRule("delete-volumes"), StepRule("release")),
    ),
}  # fmt: skip
# Once started, a delete is never undone; an operation that waits for the operator leaves its instance HELD.


def rule(verb: Verb) -> VerbRule:
    """Return the rule of a verb on instances. Raise Unsupported for other verbs."""
    found = VERBS.get(verb)
    if found is None:
        raise Unsupported(f"{verb} is not a verb of instances", evidence={"verbs": [str(v) for v in VERBS]})
    return found


def check_allowed(verb: Verb, state: S, name: str) -> None:
    """Raise Conflict when an instance in this state cannot be asked for this verb."""
    allowed = rule(verb).allowed_from
    if state not in allowed:
        raise Conflict(
            f"instance {name} is {state}: {verb} is not possible", f"instance/{name}",
            {"state": str(state), "allowed_from": sorted(allowed)},
            f"wait until it is {' or '.join(sorted(allowed))}" if len(allowed) < 5 else "",
        )  # fmt: skip
