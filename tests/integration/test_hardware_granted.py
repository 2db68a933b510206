"""From what hosts have, through enrollment and placing, to what the hypervisor is told; moved and given back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from control import host_facts, hosts, tables
from core.clock import now
from core.ids import on_host
from core.states import OperationState, Verb
from drivers.fake_world import world
from drivers.hypervisor.base import InstanceSpec
from tests.integration.line import Line

DONE = OperationState.DONE
CARD = {"id": "10de:1eb8", "class": "0302", "cell": 1, "iommu_group": 7}
ASKED = {"cpu": 2, "cpu_pinning": True, "numa": "single", "hugepages": "2MiB", "memory": 512, "pci": {"gpu": 1}}


async def equip(line: Line, *names: str) -> None:
    """Give hosts two cells, huge pages and a card, and enroll them again with what they offer of it."""
    specs = []
    for name in names:
        number = int(name[1:])
        world.hosts[name].hardware = {
            "cells": [{"cpus": list(range(8)), "memory_mib": 32768}, {"cpus": list(range(8, 16)), "memory_mib": 32768}],
            "hugepages": {"2048": 1024}, "pci": [{"address": f"0000:0{number}:00.0", **CARD}],
        }  # fmt: skip
        specs.append({"name": name, "address": f"10.99.0.{number + 1}", "driver": "fake", "pci": ["10de:*"],
                      "pinned_cpus": "4-7"})  # fmt: skip
    ended = await line.run(Verb.ENROLL, {"hosts": specs})
    assert [op.state for op in ended] == [DONE] * len(names)


def told(line: Line, name: str) -> InstanceSpec:
    """Return what the hypervisor of its host was told of an instance."""
    shown = line.instance(name)
    spec = world.hosts[shown["host"]].instances[on_host(shown["id"])].spec
    assert spec is not None
    return spec


async def deploy(line: Line, name: str, **spec: Any) -> OperationState:
    wanted = {"name": name, "image": "vm", "cpu": 1, "memory": 256, **spec}
    (op,) = await line.run(Verb.DEPLOY, {"instances": [wanted]}, rounds=1)
    return op.state


async def test_what_was_granted_is_what_the_hypervisor_gives_it(line: Line) -> None:
    await equip(line, "f0")
    assert await deploy(line, "a", **ASKED) is DONE
    spec = told(line, "a")
    assert (spec.pinned, spec.may_use, spec.cell, spec.page_kib) == ((4, 5), (), 0, 2048)
    assert spec.pci == ("0000:00:00.0",)
    assert await deploy(line, "b", requirements={"host": "f0"}) is DONE
    assert told(line, "b").may_use == (0, 1, 2, 3, *range(8, 16)), "it keeps off the cores of others"
    assert await deploy(line, "c", **ASKED) is OperationState.PENDING, "there is one card"
    await line.run(Verb.DELETE, {"instances": ["a"]})
    await line.work()
    assert told(line, "c").pci == ("0000:00:00.0",)


async def test_it_moves_while_it_is_off_and_is_granted_anew(line: Line) -> None:
    await equip(line, "f0", "f1")
    assert await deploy(line, "a", **ASKED) is DONE
    first = line.instance("a")["host"]
    with pytest.raises(Exception, match="it moves while it is off only"):
        line.submit(Verb.MIGRATE, {"instances": ["a"], "live": True})
    (op,) = await line.run(Verb.MIGRATE, {"instances": ["a"]})
    assert (op.state, op.verb) == (DONE, Verb.MIGRATE)
    second = line.instance("a")["host"]
    assert {first, second} == {"f0", "f1"}
    assert told(line, "a").pci == (f"0000:0{second[1:]}:00.0",)
    assert await deploy(line, "b", **ASKED) is DONE
    assert line.instance("b")["host"] == first, "what it had there was given back"


async def test_a_look_finds_what_a_host_has_got_since_it_was_enrolled(line: Line) -> None:
    """Once a day, and after each boot: a deploy that waits for a card is placed then."""
    await equip(line, "f0")
    assert await deploy(line, "a", pci={"gpu": 1}) is DONE
    assert await deploy(line, "b", pci={"gpu": 1}) is OperationState.PENDING
    world.hosts["f0"].hardware["pci"].append({**CARD, "address": "0000:77:00.0", "iommu_group": 8})
    await line.run(Verb.RECONCILE, {"hosts": []})
    assert line.instance("b")["host"] is None, "it was looked at today, and was not booted"
    world.boot("f0")
    await line.run(Verb.RECONCILE, {"hosts": []})
    await line.work()
    assert told(line, "b").pci == ("0000:77:00.0",)


async def test_a_host_that_was_enrolled_before_all_this_is_looked_at_once(line: Line) -> None:
    await equip(line, "f0")
    t = tables.host
    old = {"cpus": 16, "memory_mib": 65536, "machine_id": "fake-f0", "bridges": {"br0": "10.9.0.1/24"}}
    line.store.write_now(lambda c: c.execute(sa.update(t).where(t.c.name == "f0").values(facts=old, hardware=None)))
    await line.run(Verb.RECONCILE, {"hosts": []})
    found = line.store.read_now(lambda c: hosts.get(c, "f0"))
    assert found.hardware is not None
    assert [device["address"] for device in found.hardware["pci"]] == ["0000:00:00.0"]
    assert not host_facts.due(found.facts, now())
    assert host_facts.due(found.facts, now() + timedelta(days=1))
