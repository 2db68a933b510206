"""Requests that come at the same time and are entered together: each is its own, and none suffers by another."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from blueprints.instance import InstanceSpec
from control import quotas, requests
from control.access import Principal
from control.requests import Accepted, Ask
from core.errors import Conflict, Denied, NotFound, RackflowError
from core.states import Verb
from tests.rig import Rig


def ask(who: Principal, *names: str, image: str = "tiny", **more: Any) -> Ask:
    specs = [InstanceSpec(name=name, image=image) for name in names]
    return Ask(who, Verb.DEPLOY, {"instances": specs, **more}, "test")


def enter(cloud: Rig, *asks: Ask) -> list[list[str] | RackflowError]:
    """Enter requests; return for each the names of its operations, or its error."""
    answers = cloud.run(lambda c: requests.submit_all(c, asks))
    return [[op.subject_name for op in one.operations] if isinstance(one, Accepted) else one for one in answers]


def test_each_has_its_own_operations_under_its_own_request(cloud: Rig) -> None:
    asks = [ask(cloud.admin, "a"), ask(cloud.admin, "b1", "b2"), ask(cloud.admin, "c")]
    answers = cloud.run(lambda c: requests.submit_all(c, asks))
    accepted = [one for one in answers if isinstance(one, Accepted)]
    assert [[op.subject_name for op in one.operations] for one in accepted] == [["a"], ["b1", "b2"], ["c"]]
    assert len({one.request_id for one in accepted}) == 3
    assert all(op.request_id == one.request_id for one in accepted for op in one.operations)
    assert sorted(op.subject_name for op in cloud.claim()) == ["a", "b1", "b2", "c"]


def test_one_that_is_refused_is_refused_alone(cloud: Rig) -> None:
    cloud.ask("taken")
    names, taken, image, more = enter(
        cloud, ask(cloud.admin, "a"), ask(cloud.admin, "taken"), ask(cloud.admin, "b", image="none"),
        ask(cloud.admin, "c"),
    )  # fmt: skip
    assert (names, more) == (["a"], ["c"])
    assert isinstance(taken, Conflict)
    assert isinstance(image, NotFound)
    assert sorted(op.subject_name for op in cloud.claim()) == ["a", "c", "taken"]


def test_of_two_that_ask_for_one_name_the_first_gets_it(cloud: Rig) -> None:
    first, second = enter(cloud, ask(cloud.admin, "web"), ask(cloud.admin, "web"))
    assert first == ["web"]
    assert isinstance(second, Conflict)


def test_a_quota_holds_over_all_of_them(cloud: Rig) -> None:
    eve = cloud.user("eve")
    cloud.run(lambda c: quotas.set_limits(c, cloud.admin, "eve", quotas.Amount(2, None, None)))
    one, two, three, other = enter(cloud, ask(eve, "a"), ask(eve, "b"), ask(eve, "c"), ask(cloud.admin, "d"))
    assert (one, two, other) == (["a"], ["b"], ["d"])
    assert isinstance(three, Denied)


def test_what_differs_in_more_than_its_instances_goes_by_itself(cloud: Rig) -> None:
    cloud.ask("there")
    keyed = Ask(cloud.admin, Verb.DEPLOY, {"instances": [{"name": "k", "image": "tiny"}]}, "test", "key")
    delete = Ask(cloud.admin, Verb.DELETE, {"instances": ["there"]}, "test")
    held = ask(cloud.admin, "held", hold=True)
    assert enter(cloud, ask(cloud.admin, "a"), held, keyed, delete, keyed) == [["a"], ["held"], ["k"], ["there"], ["k"]]
    assert "held" not in {op.subject_name for op in cloud.claim()}


def test_a_hundred_take_as_many_statements_as_two(cloud: Rig) -> None:
    counts = []
    for n in (2, 100):
        statements: list[str] = []

        def enter_some(c: sa.Connection, n: int = n, statements: list[str] = statements) -> None:
            sa.event.listen(c, "before_cursor_execute", lambda *args: statements.append(args[2]))
            requests.submit_all(c, [ask(cloud.admin, f"i{n}-{k}") for k in range(n)])

        cloud.run(enter_some)
        counts.append(len(statements))
    assert counts[0] == counts[1]
