"""What becomes of what is under way with the instances of a host that is fenced."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from control import access, fencing, hosts, moving, operations
from control.lifecycle import step_rule
from control.operations import Operation
from core.states import HostState, Verb
from tests.rig import Rig


def step(cloud: Rig, op: Operation, name: str, evidence: dict[str, Any] | None = None, *, done: bool = True) -> None:
    sequence, rule = step_rule(op.verb, name)

    def act(c: sa.Connection) -> None:
        operations.begin_step(c, op, sequence, name, "", rule.compensation)
        if done:
            operations.end_step(c, op, sequence, changed=True, evidence=evidence)

    cloud.run(act)


def placed(cloud: Rig, **spec: Any) -> tuple[Operation, str]:
    """Return a deploy that is placed and under way, and its host."""
    cloud.ask("web", **spec)
    (op,) = cloud.claim()
    (outcome,) = cloud.place([op])
    assert outcome.host
    step(cloud, op, "place", {"host": outcome.host})
    step(cloud, op, "start", done=False)
    return op, outcome.host


def fence(cloud: Rig, host: str) -> dict[str, list[str]]:
    """Let a host be fenced, and look what becomes of its instances."""

    def act(c: sa.Connection) -> dict[str, list[str]]:
        record = hosts.get(c, host)
        hosts.set_state(c, record.id, HostState.FENCED)
        return fencing.pursue(c, record, access.ADMIN)

    return cloud.run(act)


def is_cancelled(cloud: Rig, op: Operation) -> bool:
    return cloud.run(lambda c: operations.is_cancelled(c, op))


def test_a_deploy_that_may_go_elsewhere_is_not_cancelled(cloud: Rig) -> None:
    op, host = placed(cloud)
    assert fence(cloud, host)["busy"] == ["web"]
    assert not is_cancelled(cloud, op)


def test_a_deploy_that_is_to_be_on_that_host_by_name_is_cancelled(cloud: Rig) -> None:
    op, host = placed(cloud, requirements={"host": "h2"})
    assert host == "h2"
    assert fence(cloud, host)["busy"] == ["web"]
    assert is_cancelled(cloud, op)


def test_what_did_not_come_there_is_cancelled_but_never_a_delete(cloud: Rig) -> None:
    cloud.deploy("a", "b", requirements={"host": "h1"})
    cloud.submit(Verb.SHUTDOWN, {"instances": ["a"]})
    cloud.submit(Verb.DELETE, {"instances": ["b"]})
    shutdown, delete = sorted(cloud.claim(), key=lambda op: op.subject_name)
    assert sorted(fence(cloud, "h1")["busy"]) == ["a", "b"]
    assert is_cancelled(cloud, shutdown)
    assert not is_cancelled(cloud, delete)
    assert delete.verb is Verb.DELETE


def moved(cloud: Rig, verb: Verb, body: dict[str, Any]) -> tuple[Operation, str]:
    """Let an instance move to another host as far as the record's switch; return the operation and that host."""
    cloud.submit(verb, {"instances": ["web"], **body})
    (op,) = cloud.claim()
    target = cloud.run(lambda c: moving.reserve(c, op))
    step(cloud, op, "reserve", {"to": target})
    cloud.run(lambda c: moving.switch(c, op, to=target))
    step(cloud, op, "switch", {"to": target})
    step(cloud, op, "start-again", done=False)
    return op, target


@pytest.mark.parametrize("by_name", [True, False])
def test_a_migration_that_came_there_is_cancelled_if_it_was_to_by_name(cloud: Rig, by_name: bool) -> None:
    cloud.deploy("web")
    there = "h2" if cloud.show("web")["host"] == "h1" else "h1"
    op, target = moved(cloud, Verb.MIGRATE, {"live": False, **({"host": there} if by_name else {})})
    assert (target, cloud.show("web")["host"]) == (there, there)
    fence(cloud, target)
    assert is_cancelled(cloud, op) is by_name


def test_a_migration_that_has_not_left_yet_is_cancelled(cloud: Rig) -> None:
    cloud.deploy("web")
    cloud.submit(Verb.MIGRATE, {"instances": ["web"], "live": False})
    (op,) = cloud.claim()
    step(cloud, op, "reserve", {"to": cloud.run(lambda c: moving.reserve(c, op))})
    step(cloud, op, "stop", done=False)
    fence(cloud, cloud.show("web")["host"])
    assert is_cancelled(cloud, op)
