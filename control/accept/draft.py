"""What every acceptor returns, and how bodies are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from blueprints.common import Spec, read_spec
from blueprints.instance import PRIORITY
from control import operations, sql, tables
from control.access import Principal
from control.ledger import Operation, operation_of
from core.errors import Conflict, Invalid
from core.states import UNFINISHED, Verb

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class Draft:
    """An operation to be entered. existing: it is there already and is the answer.

    waits_for_subject: another operation of the same subject is unfinished (after_id), so this one has no right to the
    subject before that has ended. epoch: the subject's; each claim's epoch lies above it.
    """

    subject: str
    subject_name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    after_id: str | None = None
    waits_for_subject: bool = False
    epoch: int = 0
    existing: Operation | None = None
    verb: Verb | None = None  # where it is not the one asked for
    not_before: datetime | None = None
    priority: int = PRIORITY


Acceptor = Callable[[sa.Connection, Principal, Mapping[str, Any]], list[Draft]]


def check_keys(body: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Raise Invalid for a field that the verb does not know."""
    unknown = sorted(set(body) - set(allowed))
    if unknown:
        raise Invalid(f"unknown field {', '.join(unknown)}", "request", {"allowed": sorted(allowed)})


def names(body: Mapping[str, Any], key: str, *, required: bool = True) -> list[str]:
    """Return a list of names out of a body, each once, in order. Raise Invalid."""
    found = body.get(key) or []
    if isinstance(found, str) or not isinstance(found, Sequence) or not all(isinstance(n, str) and n for n in found):
        raise Invalid(f"{key} is not a list of names", "request", {key: found})
    if required and not found:
        raise Invalid(f"{key} is empty: nothing was asked for", "request", fix=f"name at least one of {key}")
    return list(dict.fromkeys(found))


def specs(body: Mapping[str, Any], key: str, model: type[S]) -> list[S]:
    """Return a list of specs out of a body. Raise Invalid with every error's field and message."""
    found = body.get(key)
    if not isinstance(found, Sequence) or isinstance(found, str) or not found:
        raise Invalid(f"{key} is empty: nothing was asked for", "request", fix=f"give at least one of {key}")
    parsed: list[S] = []
    errors: list[dict[str, str]] = []
    for index, item in enumerate(found):
        spec, wrong = read_spec(model, item, f"{key}.{index}")
        errors += wrong
        parsed += [spec] if spec is not None else []
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise Invalid(f"{errors[0]['field']}: {errors[0]['message']}{more}", "request", {"errors": errors})
    return parsed


def check_unique(found: Sequence[str], noun: str) -> None:
    """Raise Invalid for a name that stands twice in one request."""
    twice = sorted({name for name in found if found.count(name) > 1}) if len(set(found)) < len(found) else []
    if twice:
        raise Invalid(f"{noun} {twice[0]} stands twice in the request", f"{noun}/{twice[0]}", {"names": twice})


def unfinished(c: sa.Connection, subjects: Collection[str]) -> dict[str, list[Operation]]:
    """Lock and return the unfinished operations of subjects, oldest first."""
    t = tables.operation
    rows = sql.fetch_in(
        c, set(subjects),
        lambda part: sa.select(t).where(t.c.subject.in_(part), t.c.state.in_(UNFINISHED))
        .order_by(t.c.id).with_for_update(),
    )  # fmt: skip
    found: dict[str, list[Operation]] = {}
    for row in sorted(rows, key=lambda row: row["id"]):
        found.setdefault(row["subject"], []).append(operation_of(row))
    return found


def instead(
    c: sa.Connection, running: Mapping[str, list[Operation]], verb: Verb, reason: str
) -> tuple[dict[str, Operation], dict[str, list[Operation]]]:
    """Cancel what is under way, but where the same verb is; return those, and what of the others has not ended yet."""
    same = {subject: op for subject, ops in running.items() for op in ops if op.verb is verb}
    others = {subject: ops for subject, ops in running.items() if subject not in same}
    operations.cancel_all(c, [op for ops in others.values() for op in ops], reason)
    return same, unfinished(c, list(others)) if others else {}


def busy(op: Operation) -> Conflict:
    """Return the error that names the operation which holds a subject."""
    return Conflict(
        f"{op.subject_kind} {op.subject_name} is busy: operation {op.id} ({op.verb}) is {op.state}", op.subject,
        {"operation": op.id, "verb": op.verb, "state": op.state}, f"wait for it, or: rackflow operation cancel {op.id}",
    )  # fmt: skip
