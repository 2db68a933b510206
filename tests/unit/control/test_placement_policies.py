"""Policies, what history says, who comes first when there is not room for all, and what is promised for later."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from control.placement import engine
from control.placement.model import Choice, Hold, Request, Rule, Shape, View
from control.placement.weights import check_policy
from core.errors import Invalid
from tests.property.oracle import Machine, view_of

SMALL = Shape("vm", 1000, 256, 0)


def view(count: int = 3, **each: Any) -> View:
    return view_of([Machine(f"h{n}", disk={"local": (10_000, 0)}, **{"cpus": 4, **each}) for n in range(count)], {})


def many(shape: Shape, count: int, **each: Any) -> list[Request]:
    name = each.pop("name", "r")
    return [Request(f"{name}{n}", f"{name}{n}", shape, **each) for n in range(count)]


def per_host(choices: list[Choice]) -> list[int]:
    return sorted(Counter(choice.host for choice in choices if choice.host is not None).values(), reverse=True)


@pytest.mark.parametrize(("policy", "hosts"), [("balanced", [4, 2]), ("pack", [4, 2]), ("spread", [2, 2, 2])])
def test_a_policy_packs_or_spreads(policy: str, hosts: list[int]) -> None:
    assert per_host(engine.choose(view(), many(SMALL, 6), policy=policy)) == hosts


def features(**by_host: dict[str, float]) -> dict[str, Any]:
    return {"hosts": {name: {"samples": 10, "cpu_used_ratio": 0.1, **seen} for name, seen in by_host.items()}}


def chosen(seen: dict[str, Any], shape: Shape = SMALL, **options: Any) -> int | None:
    return engine.choose(view(3, instances=1), [Request("r", "r", shape)], seen, **options)[0].host


def test_the_least_loaded_host_is_taken() -> None:
    loads = features(h0={"cpu_used_ratio": 0.6}, h1={"cpu_used_ratio": 0.2}, h2={"cpu_used_ratio": 0.4})
    assert chosen(loads, policy="load-aware") == 1


def test_a_host_whose_starts_fail_comes_last() -> None:
    assert chosen(features(h0={"failure_ratio": 0.3}, h1={}, h2={})) == 1


def test_an_instance_goes_where_others_stay_as_long_as_itself() -> None:
    hours = features(h0={"exit_s": 600}, h1={"exit_s": 7200}, h2={"exit_s": 90_000})
    assert chosen(hours) == 0, "nothing is known of its lifetime"
    assert chosen(hours, replace(SMALL, lifetime_s=7000)) == 1
    assert chosen(hours, replace(SMALL, lifetime_s=80_000)) == 2


def test_a_soft_rule_is_kept_if_that_is_possible_and_broken_otherwise() -> None:
    apart = replace(SMALL, own_labels=(("role", "web"),), rules=(Rule(False, (("role", "web"),), hard=False),))
    assert per_host(engine.choose(view(), many(apart, 3))) == [1, 1, 1]
    assert per_host(engine.choose(view(), many(apart, 5))) == [2, 2, 1]


def test_the_higher_priority_is_placed_when_there_is_not_room_for_all() -> None:
    low, high = many(SMALL, 12, name="low"), many(SMALL, 4, name="high", priority=5)
    choices = engine.choose(view(), [*low, *high])
    assert [choice.host is not None for choice in choices[12:]] == [True] * 4
    assert sum(choice.host is not None for choice in choices) == 12
    assert all("cpu" in choice.record["summary"] for choice in choices if choice.host is None)


def test_owners_get_alike_when_there_is_not_room_for_all() -> None:
    greedy, modest = many(SMALL, 40, name="a", owner="a"), many(SMALL, 6, name="b", owner="b")
    choices = engine.choose(view(), [*greedy, *modest])
    got = Counter(choice.request.owner for choice in choices if choice.host is not None)
    assert got == {"a": 6, "b": 6}


def test_what_owners_hold_already_counts_when_there_is_not_room_for_all() -> None:
    a, b = many(SMALL, 12, name="a", owner="a"), many(SMALL, 12, name="b", owner="b")
    choices = engine.choose(replace(view(), held={"a": 0.5}), [*a, *b])  # 6 of the cloud's 12 cores
    got = Counter(choice.request.owner for choice in choices if choice.host is not None)
    assert got == {"b": 9, "a": 3}


def test_when_there_is_room_for_all_nobody_waits_for_a_turn() -> None:
    choices = engine.choose(view(), [*many(SMALL, 4, owner="a"), *many(SMALL, 4, name="b", owner="b")])
    assert per_host(choices) == [4, 4]


def test_a_gang_that_does_not_fit_leaves_its_room_to_others() -> None:
    gang, alone = many(SMALL, 13, name="g", gang="service"), many(SMALL, 12)
    choices = engine.choose(view(), [*gang, *alone])
    assert [choice.host for choice in choices[:13]] == [None] * 13
    assert "gang service: 1 of its 13 fit nowhere, so none is placed" in choices[0].record["summary"]
    assert all(choice.host is not None for choice in choices[13:])


def test_a_host_whose_maintenance_begins_too_soon_is_passed_over() -> None:
    machines = [Machine(f"h{n}", disk={"local": (100, 0)}, window_s=w) for n, w in enumerate([5000.0, 90_000.0])]
    cloud = view_of(machines, {})

    def where(lifetime_s: int) -> tuple[int | None, dict[str, Any]]:
        choice = engine.choose(cloud, [Request("r", "r", replace(SMALL, lifetime_s=lifetime_s))])[0]
        return choice.host, choice.record

    assert [where(seconds)[0] for seconds in (0, 600, 6000, 100_000)] == [0, 0, 1, None]
    (told,) = [entry for entry in where(6000)[1]["hosts"] if entry["host"] == "h0"]
    assert told["constraint"] == "maintenance"
    assert told["reason"] == "has a maintenance in 5000 s, 6000 s are needed"


def test_what_is_promised_for_later_is_free_for_what_ends_before() -> None:
    cloud = replace(view(1), holds=(Hold(0, 7200.0, 3000, 1024, "the night's batch"),))
    short, long = replace(SMALL, lifetime_s=3600), replace(SMALL, lifetime_s=9000)
    assert per_host(engine.choose(cloud, many(short, 5))) == [4]
    assert per_host(engine.choose(cloud, many(long, 5))) == [1]
    told = engine.choose(cloud, many(SMALL, 2))[1].record
    assert "promised on h0 (has 3 cores and 3840 MiB free, but promised 3 cores" in told["summary"]


def test_a_record_is_bounded_and_counts_the_rest() -> None:
    (choice,) = engine.choose(view(40, cluster="edge"), [Request("r", "r", SMALL)])
    assert [entry["rank"] for entry in choice.record["hosts"]] == [0, 1, 2, 3, 4]
    assert choice.record["others"] == {"fits": 35}
    (none,) = engine.choose(view(40), [Request("r", "r", replace(SMALL, memory_mib=9000))])
    assert len(none.record["hosts"]) == 5
    assert none.record["others"] == {"memory": 35}
    assert "and 37 more" in none.record["summary"]


def test_a_rule_that_keeps_it_away_is_named_and_would_do_as_a_wish() -> None:
    web = (("role", "web"),)
    apart = replace(SMALL, own_labels=web, rules=(Rule(False, web), Rule(True, (("disk", "ssd"),), on_hosts=True)))
    machines = [Machine("h0", disk={"local": (100, 0)}, labels={"disk": "ssd"}, guests=[(dict(web), ())])]
    (choice,) = engine.choose(view_of(machines, {}), [Request("r", "r", apart)])
    assert choice.record["change"] == {
        "host": "h0", "text": 'with "apart from role=web by host" only as a wish, it would fit on h0',
        "changes": [{"field": "rules", "from": "apart from role=web by host", "to": "wish"}],
    }  # fmt: skip


def test_where_all_is_full_one_more_host_of_the_right_kind_is_named() -> None:
    machines = [
        Machine("big", cpus=16, cpu_used_m=16_000, disk={"local": (100, 0)}),
        Machine("big-edge", cpus=16, cpu_used_m=16_000, disk={"local": (100, 0)}, cluster="edge"),
        Machine("small", cpus=2, cpu_used_m=2000, disk={"local": (100, 0)}, cluster="edge"),
    ]
    wanted = replace(SMALL, cpu_m=4000, cluster="edge")
    (choice,) = engine.choose(view_of(machines, {}), [Request("r", "r", wanted)])
    assert choice.record["change"]["text"] == "one more host like big-edge would hold it"
    assert choice.record["change"]["changes"] == [{"field": "hosts", "from": None, "to": "one more like big-edge"}]


@pytest.mark.parametrize(
    ("policy", "hosts"),
    [("best-fit", [0, 0, 0, 0, 1]), ("first-fit", [0, 0, 0, 0, 1]), ("striping", [0, 1, 2, 0, 1]),
     ("fragmentation-aware", [0, 0, 0, 0, 1]), ("image-local", [0, 0, 0, 0, 1])],
)  # fmt: skip
def test_named_policies_order_hosts(policy: str, hosts: list[int]) -> None:
    chosen_hosts = [one.host for one in engine.choose(view(), many(SMALL, 5), policy=policy) if one.host is not None]
    assert sorted(chosen_hosts) == sorted(hosts)


def test_the_more_crowded_of_two_equally_full_hosts_is_taken() -> None:
    about: dict[str, Any] = {"disk": {"local": (10_000, 0)}, "cpus": 8, "cpu_used_m": 4000}
    alike = [Machine(f"h{n}", instances=1 + 3 * n, **about) for n in range(2)]
    asked = [Request("r", "r", SMALL)]
    assert engine.choose(view_of(alike, {}), asked)[0].host == 1, "the other one gets empty sooner"
    assert engine.choose(view_of(alike, {}), asked, policy="pack")[0].host == 0


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(Invalid, match="there is no policy 'x'"):
        check_policy("x")
