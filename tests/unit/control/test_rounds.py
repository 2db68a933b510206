"""Recorded rounds of placement: they come back as they were, are decided again alike, are kept for a while."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from blueprints.cluster import ClusterSpec
from control import clusters, hosts, round_codec, rounds, tables
from control.placement.model import Cell, Guests, Hold, Pool, Rule, View
from control.rounds import Round
from control.simulation.replay import replay
from core.clock import now
from core.errors import RackflowError
from core.states import HostState, InstanceState, OperationState
from tests.property.oracle import Machine, view_of
from tests.rig import Rig


def recorded(cloud: Rig) -> list[Round]:
    return cloud.run(lambda c: list(rounds.rounds(c)))


def kinds(cloud: Rig) -> dict[str, int]:
    t = tables.placement_round
    rows = cloud.run(lambda c: c.execute(sa.select(t.c.kind, sa.func.count()).group_by(t.c.kind)).all())
    return {row[0]: row[1] for row in rows}


def features(dice: random.Random, version: int) -> dict[str, Any]:
    seen = {
        f"h{n}": {"samples": 9, "cpu_used_ratio": dice.random(), "memory_used_mib": dice.randrange(3000)}
        for n in range(1, 5)
    }
    return {"version": version, "hosts": seen}


def live(cloud: Rig, steps: int, seed: int) -> None:
    """Have a cloud of four hosts live: instances of all sizes come, fail and go, hosts change, history learns."""
    dice = random.Random(seed)
    cloud.host("h3", labels={"rack": "r1"})
    cloud.host("h4", kinds=["container"])
    alive: list[str] = []
    told: dict[str, Any] = {}
    for step in range(steps):
        if step % 7 == 3:
            told = features(dice, step)
        if step % 11 == 5:
            state = dice.choice([HostState.READY, HostState.DISABLED])
            cloud.run(lambda c, state=state: hosts.set_state(c, hosts.get(c, "h1").id, state))  # type: ignore[misc]
        if alive and dice.random() < 0.4:
            cloud.delete(alive.pop(dice.randrange(len(alive))))
        names = [f"i{step}-{n}" for n in range(dice.randrange(1, 4))]
        about: dict[str, Any] = {"labels": {"app": "x"}, "anti_affinity": [{"labels": {"app": "x"}, "hard": False}]}
        cloud.ask(*names, cpu=dice.choice([0.5, 1, 2]), memory=dice.choice([128, 512, 1024]),
                  **(about if dice.random() < 0.3 else {}))  # fmt: skip
        ops = cloud.claim()
        outcomes = cloud.place(ops, told)
        done = [op for op, outcome in zip(ops, outcomes, strict=True) if outcome.host]
        alive += [op.subject_name for op in done]
        cloud.end(done, InstanceState.RUNNING)
        cloud.end([op for op in ops if op not in done], InstanceState.FAILED, OperationState.FAILED)


def test_what_was_decided_is_decided_again_to_the_last_bit(cloud: Rig) -> None:
    live(cloud, 60, seed=5)
    told = replay(recorded(cloud))
    assert told["rounds"] == told["same_rounds"] == 60
    assert told["decisions"] == told["same_decisions"] > 100
    assert told["differences"] == []
    assert told["recorded"] == told["replayed"]
    assert told["recorded"]["rejected"] > 0
    assert kinds(cloud)["round"] == 60
    assert kinds(cloud)["features"] == 10, "one for each version, and one without any"


def test_policies_of_clusters_are_part_of_what_was_decided_from(cloud: Rig) -> None:
    edge = ClusterSpec(name="edge", placement_policy="striping")
    cloud.run(lambda c: clusters.ensure(c, cloud.admin, edge))
    cloud.host("e1", cluster="edge")
    cloud.host("e2", cluster="edge")
    for n in range(3):
        cloud.deploy(f"i{n}", requirements={"cluster": "edge"})
    cloud.run(lambda c: clusters.ensure(c, cloud.admin, ClusterSpec(name="edge", placement_policy="pack")))
    live(cloud, 20, seed=3)
    whole = recorded(cloud)
    assert [dict(one.view.policies) for one in whole[2:4]] == [{"edge": "striping"}, {"edge": "pack"}]
    assert replay(whole)["same_rounds"] == len(whole)
    told = replay(whole[:3], "pack")
    assert [one["name"] for one in told["differences"]] == ["i1"], "another policy counts everywhere"


def less_memory(one: Round) -> Round:
    return replace(one, view=replace(one.view, memory_left_mib=one.view.memory_left_mib - 3500))


def all_hot(one: Round) -> Round:
    seen = {name: {"samples": 9, "memory_used_mib": 4000} for name in one.view.names}
    return replace(one, features={"hosts": seen})


def one_more_core(one: Round) -> Round:
    first = one.requests[0]
    return replace(one, requests=[first._replace(shape=replace(first.shape, cpu_m=2000)), *one.requests[1:]])


def another_host(one: Round) -> Round:
    return replace(one, choices=[(1, *one.choices[0][1:]), *one.choices[1:]])


@pytest.mark.parametrize("planted", [less_memory, all_hot, one_more_core, another_host])
def test_an_input_that_is_not_what_it_was_is_found(cloud: Rig, planted: Callable[[Round], Round]) -> None:
    for n in range(5):
        cloud.deploy(f"i{n}")
    whole = recorded(cloud)
    assert replay(whole)["same_rounds"] == 5
    told = replay([*whole[:2], planted(whole[2]), *whole[3:]])
    assert (told["rounds"], told["same_rounds"]) == (5, 4)


def test_another_policy_decides_otherwise_and_the_difference_is_told(cloud: Rig) -> None:
    for n in range(3):
        cloud.deploy(f"i{n}")
    told = replay(recorded(cloud), "spread")
    assert [(one["name"], one["recorded"], one["now"]) for one in told["differences"]] == [
        ("i1", "h1", "h2"), ("i2", "h1", "h2"),
    ]  # fmt: skip
    assert (told["recorded"]["opened"], told["replayed"]["opened"]) == (1, 3)


def test_a_view_that_was_never_committed_is_not_built_upon(cloud: Rig) -> None:
    cloud.ask("a")
    ops = cloud.claim()

    def fail(c: sa.Connection) -> None:
        from control import placing

        placing.place(c, ops)
        raise RackflowError("cut off")

    with pytest.raises(RackflowError):
        cloud.run(fail)
    cloud.place(ops)
    assert replay(recorded(cloud))["same_rounds"] == 1


def test_old_rounds_go_and_what_newer_ones_are_held_against_stays(cloud: Rig) -> None:
    cloud.deploy("a")
    cloud.deploy("b")
    t, old = tables.placement_round, now() - timedelta(days=9)
    first = sa.select(t.c.id).where(t.c.kind == "round").order_by(t.c.id.desc()).limit(1)
    newest = cloud.run(lambda c: c.scalar(first))
    cloud.run(lambda c: c.execute(sa.update(t).where(t.c.id != newest).values(at=old)))
    cloud.run(lambda c: rounds.purge(c, now() - timedelta(days=7)))
    assert kinds(cloud) == {"view": 1, "features": 1, "round": 1}
    assert replay(recorded(cloud))["same_rounds"] == 1
    cloud.run(lambda c: c.execute(sa.update(t).values(at=old)))
    cloud.run(lambda c: rounds.purge(c, now() - timedelta(days=7)))
    assert kinds(cloud) == {}
    cloud.deploy("c")
    assert replay(recorded(cloud))["same_rounds"] == 1, "what later ones would be held against was gone"


def wide(count: int, **about: Any) -> View:
    """Return a view in which everything that a view may hold is there."""
    machines = [Machine(f"h{n}", disk={"local": (900, n)}, networks=("lan",)) for n in range(count)]
    made = view_of(machines, {"lan": [1, 2]})
    pool = Pool(np.arange(count), np.arange(count))
    rule = Rule(False, (("app", "x"),))
    return replace(made, **{
        "pci": {"gpu": pool}, "hugepages": {2048: pool}, "pins": pool, "cells": (Cell(pool, pool),) * 2,
        "guests": Guests(np.arange(count), ((("app", "x"),),) * count, ((rule,),) * count),
        "windows_s": np.full(count, np.inf), "holds": (Hold(0, 5.0, 1000, 64, "backup"),), **about,
    })  # fmt: skip


def changed(view: View) -> list[View]:
    pool = Pool(view.cpus_m, view.cpus_m - 1)
    longer = Guests(np.arange(len(view) + 1), ((("b", "y"),), *view.guests.labels), ((), *view.guests.rules))  # type: ignore[union-attr]
    net = replace(view.nets["lan"], taken=frozenset({7, 2}), left=view.nets["lan"].left - 1)
    return [
        view, wide(len(view) + 1), replace(view, nets={"lan": net}), replace(view, guests=longer),
        replace(view, cells=(view.cells[0], Cell(pool, pool))), replace(view, guests=None, pins=None, holds=()),
        replace(view, states=(*view.states[:3], "disabled", *view.states[4:])),
        replace(view, images={"ab": view.unknown}), replace(view, nets={"dmz": view.nets["lan"], "lan": net}),
        replace(view, memory_left_mib=view.memory_left_mib - np.eye(len(view), dtype=np.int64)[2]),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(10))
def test_a_view_comes_back_as_it_was(number: int) -> None:
    view = wide(12)
    new = changed(view)[number]
    whole = round_codec.back(round_codec.load(round_codec.dump(round_codec.plain(new))))
    part = round_codec.patched(view, round_codec.load(round_codec.dump(round_codec.patch(view, new))))
    for found in (whole, part):
        assert round_codec.plain(found) == round_codec.plain(new)
        assert found.memory_left_mib.dtype == new.memory_left_mib.dtype


def test_what_has_no_form_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no form"):
        round_codec.plain({"a": object()})
