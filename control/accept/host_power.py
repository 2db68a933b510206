"""Sleep and wake: what is asked of the power of hosts that nobody needs now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from control import hosts, sleeping
from control.accept.draft import Draft, busy, check_keys, names, unfinished
from control.access import Principal, require
from core.states import Verb

_KEYS = ("hosts", "reason")
_BEGIN = {Verb.SLEEP: sleeping.begin_sleep, Verb.WAKE: sleeping.begin_wake}


def sleep(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Take hosts that hold nothing out of use, to be switched off. Raise NotFound, Denied, Conflict, Unsupported."""
    return _drafts(c, principal, Verb.SLEEP, body)


def wake(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Let hosts that are asleep be switched on. Raise NotFound, Denied, Conflict."""
    return _drafts(c, principal, Verb.WAKE, body)


def _drafts(c: sa.Connection, principal: Principal, verb: Verb, body: Mapping[str, Any]) -> list[Draft]:
    """Return what is to be done; the same verb that is under way already is the answer."""
    check_keys(body, _KEYS)
    found = hosts.records(c, names(body, "hosts"))
    running = unfinished(c, [f"host/{host.id}" for host in found])
    drafts: list[Draft] = []
    for host in found:
        require(principal, verb, None, f"host/{host.name}")
        subject = f"host/{host.id}"
        before = running.get(subject, [])
        same = next((op for op in before if op.verb is verb), None)
        if before and same is None:
            raise busy(before[0])
        if same is None:
            _BEGIN[verb](c, host)
        reason = str(body.get("reason") or "asked for by hand")
        drafts.append(Draft(subject, host.name, {"reason": reason}, existing=same))
    return drafts
