"""Cores, cells, huge pages and devices that are one instance's alone: what is granted, never twice, and given back."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from api import models
from blueprints.instance import InstanceSpec
from control import decisions, hosts, moving, placing, tables
from control.hardware_offered import offered
from control.placement.model import Shape
from control.placing_hardware import Machine, grant
from core.errors import Invalid, NoFit, Unsupported
from core.states import InstanceState, Verb
from core.units import numbers
from tests.rig import Rig, in_memory

FACTS = {
    "cpus": 8,
    "cells": [{"cpus": [0, 1, 2, 3], "memory_mib": 2048}, {"cpus": [4, 5, 6, 7], "memory_mib": 2048}],
    "hugepages": {"2048": 1024, "1048576": 0},
    "pci": [
        {"address": "0000:01:00.0", "id": "10de:1eb8", "class": "0302", "iommu_group": 1},
        {"address": "0000:02:00.0", "id": "10de:2230", "class": "0300", "iommu_group": 2},
        {"address": "0000:03:00.0", "id": "8086:1572", "class": "0200", "iommu_group": 3},
    ],
}
OFFER = {"pinned_cpus": "2-3,6-7", "pci": ["10de:*"]}
ALL = ["pci", "pinning", "numa", "hugepages"]


def equip(rig: Rig, name: str, facts: dict[str, Any] = FACTS, offer: dict[str, Any] = OFFER) -> None:
    t = tables.host
    values = {"hardware": offered(facts, offer), "capabilities": {"kinds": ["vm"], "grants": ALL}}
    rig.run(lambda c: c.execute(sa.update(t).where(t.c.name == name).values(**values)))


@pytest.fixture
def one(rig: Rig) -> Rig:
    """A host of 8 cores and 4 GiB in two cells; of that 4 cores to pin, 1 GiB in pages and two GPUs; no overcommit."""
    rig.network()
    rig.image()
    rig.host("h1", cpus=8, memory_mib=4096, cpu_overcommit=1)
    equip(rig, "h1")
    return rig


def put(rig: Rig, name: str, **spec: Any) -> placing.Outcome:
    rig.ask(name, **{"memory": 64, **spec})
    ops = [op for op in rig.claim() if op.subject_name == name]
    (outcome,) = rig.place(ops)
    if outcome.error is None:
        rig.end(ops, InstanceState.RUNNING)
    return outcome


def granted(rig: Rig, name: str, column: str = "granted") -> dict[str, Any]:
    t = tables.instance
    return rig.run(lambda c: c.execute(sa.select(t.c[column]).where(t.c.name == name)).scalar_one()) or {}


def test_what_is_not_declared_is_not_handed_out() -> None:
    assert offered({"cpus": 4, "pci": FACTS["pci"]}, {}) is None
    bare = [{**one, "iommu_group": None} for one in FACTS["pci"]]  # type: ignore[dict-item]
    assert offered({"cpus": 4, "pci": bare}, OFFER) is not None
    assert not (offered({"cpus": 4, "pci": bare}, OFFER) or {})["pci"], "without an IOMMU nothing can be passed on"
    found = offered(FACTS, OFFER)
    assert found is not None
    assert [one["id"] for one in found["pci"]] == ["10de:1eb8", "10de:2230"]
    assert (found["pinned"], found["pages"]) == ([2, 3, 6, 7], {"2048": 1024})
    assert offered({"cpus": 4}, {"pinned_cpus": "3,9"}) == {
        "cells": [{"cpus": [0, 1, 2, 3], "memory_mib": 0}], "pinned": [3], "pages": {}, "pci": [],
    }  # fmt: skip


def card(address: str, device: str, kind: str, group: int | None) -> dict[str, Any]:
    return {"address": address, "id": device, "class": kind, "iommu_group": group}


def test_what_cannot_be_passed_on_is_refused_with_the_reason() -> None:
    pci = [card("0000:01:00.0", "10de:1eb8", "0302", 1), card("0000:01:00.1", "10de:10f0", "0403", 1),
           card("0000:02:00.0", "8086:1572", "0200", 1), card("0000:03:00.0", "10de:2230", "0300", None)]  # fmt: skip
    found = offered({"cpus": 4, "pci": pci}, {"pci": ["10de:*"]})
    assert found is not None
    assert found["pci"] == []
    told = {one["address"]: one["why"] for one in found["refused"]}
    assert "0000:02:00.0 (8086:1572) of its IOMMU group 1 would have to go with it" in told["0000:01:00.0"]
    assert "no IOMMU" in told["0000:03:00.0"]
    all_of_it = offered({"cpus": 4, "pci": pci[:3]}, {"pci": ["10de:*", "8086:1572"]})
    assert all_of_it is not None
    assert ([one["address"][5:] for one in all_of_it["pci"]], "refused" in all_of_it) == (
        ["01:00.0", "01:00.1", "02:00.0"], False
    )  # fmt: skip


def test_a_device_takes_along_what_is_of_its_iommu_group(one: Rig) -> None:
    pci = [card("0000:01:00.0", "10de:1eb8", "0302", 1), card("0000:01:00.1", "10de:10f0", "0403", 1),
           card("0000:02:00.0", "10de:1eb8", "0302", 2)]  # fmt: skip
    equip(one, "h1", {**FACTS, "pci": pci})
    assert put(one, "a", pci={"gpu": 1}).host == "h1"
    assert granted(one, "a")["pci"] == ["0000:01:00.0", "0000:01:00.1"]
    assert put(one, "b", pci={"10de:10f0": 1}).host is None, "it went along with the first card"
    assert put(one, "c", pci={"gpu": 1}).host == "h1"
    assert granted(one, "c")["pci"] == ["0000:02:00.0"]
    shown = models.HostShown.model_validate(one.run(lambda c: hosts.show(c, one.admin, "h1"))).hardware
    assert shown is not None
    assert [device.free for device in shown.pci] == [False] * 3


def test_pages_that_others_use_are_not_offered() -> None:
    facts = {**FACTS, "hugepages": {"2048": 1024}, "hugepages_free": {"2048": 256}}
    assert (offered(facts, {}) or {})["pages"] == {"2048": 256}
    ours = [{"page_kib": 2048, "memory_mib": 512}, {"memory_mib": 512}]
    assert (offered(facts, {}, ours) or {})["pages"] == {"2048": 768}, "512 are ours, 256 somebody else's"
    assert (offered(facts, {}, [{"page_kib": 2048, "memory_mib": 1024}]) or {})["pages"] == {"2048": 1024}


PAGED = {**FACTS, "hugepages": {"2048": 1024}, "hugepages_free": {"2048": 1024}, "cells": [
    {"cpus": [0, 1, 2, 3], "memory_mib": 2048, "hugepages": {"2048": 256}, "hugepages_free": {"2048": 256}},
    {"cpus": [4, 5, 6, 7], "memory_mib": 2048, "hugepages": {"2048": 768}, "hugepages_free": {"2048": 768}},
]}  # fmt: skip


def test_pages_of_a_cell_are_its_own(one: Rig) -> None:
    """What is bound to a cell gets its pages there and nowhere else: QEMU would not start (numatune, strict)."""
    equip(one, "h1", PAGED)
    wanted: dict[str, Any] = {"numa": "single", "hugepages": "2MiB", "memory": 384, "cpu": 1}
    assert [put(one, name, **wanted).host for name in "abc"] == ["h1", "h1", None]
    assert [granted(one, name)["cell"] for name in "ab"] == [1, 1]
    error = put(one, "d", **wanted).error
    assert error is not None
    assert "needs 384 MiB in pages of 2048 KiB, 256 of 1024 are free" in error.message
    assert put(one, "e", **{**wanted, "memory": 256}).host == "h1"
    assert granted(one, "e")["cell"] == 0


def test_a_cell_without_the_pages_is_the_reason(one: Rig) -> None:
    equip(one, "h1", PAGED)
    error = put(one, "a", numa="single", hugepages="2MiB", memory=1024, cpu=1).error
    assert error is not None
    assert "needs 1 cores and 1024 MiB in pages of 2048 KiB in one NUMA cell" in error.message


def test_those_of_no_cell_may_have_taken_the_pages_of_any(one: Rig) -> None:
    equip(one, "h1", PAGED)
    assert put(one, "a", hugepages="2MiB", memory=512, cpu=1).host == "h1"
    wanted: dict[str, Any] = {"numa": "single", "hugepages": "2MiB", "cpu": 1}
    assert put(one, "b", memory=512, **wanted).host is None
    assert put(one, "c", memory=256, **wanted).host == "h1"
    assert granted(one, "c")["cell"] == 1


def test_memory_of_a_cell_that_is_in_pages_is_none_for_others(one: Rig) -> None:
    equip(one, "h1", PAGED)
    assert put(one, "a", numa="single", memory=1400, cpu=1).host == "h1"
    assert granted(one, "a")["cell"] == 0, "2048 less 256"
    assert put(one, "b", numa="single", memory=1400, cpu=1).host is None, "the other one has 1280"


def test_threads_of_one_core_go_together() -> None:
    """Of as few cores as can be: no core is shared with somebody else that need not be."""
    cell = {"cpus": [*range(8)], "memory_mib": 4096, "siblings": [[0, 4], [1, 5], [2, 6], [3, 7]]}
    machine = Machine([cell], {1, 2, 3, 5, 6, 7}, {}, [])
    shapes = [Shape("vm", 1000 * n, 64, 0, pinned=True) for n in (1, 2, 1, 2)]
    found, short = grant([machine], [(str(n), shape, 0) for n, shape in enumerate(shapes)])
    assert not short
    assert [found[str(n)]["cpus"] for n in range(4)] == [[1], [2, 6], [5], [3, 7]]


def test_pinned_ones_get_cores_of_their_own_of_one_cell_if_they_can(one: Rig) -> None:
    assert [put(one, name, cpu=2, cpu_pinning=True).host for name in ("a", "b")] == ["h1", "h1"]
    assert sorted([granted(one, name)["cpus"] for name in ("a", "b")]) == [[2, 3], [6, 7]]
    error = put(one, "c", cpu=1, cpu_pinning=True).error
    assert error is not None
    assert "needs 1 cores of its own, 0 of 4 can be pinned" in error.message
    one.delete("a")
    assert put(one, "d", cpu=1, cpu_pinning=True).host == "h1"


def test_all_others_share_what_is_not_for_pinning(one: Rig) -> None:
    assert [put(one, f"a{n}", cpu=2).host for n in range(3)] == ["h1", "h1", None]
    assert put(one, "p", cpu=4, cpu_pinning=True).host == "h1"
    one.delete("a0")
    assert put(one, "b", cpu=2).host == "h1", "pinned cores are not taken from those that are shared"


def test_huge_pages_are_no_part_of_the_memory_that_others_share(one: Rig) -> None:
    assert put(one, "a", cpu=1, memory=3072).host == "h1"
    assert put(one, "b", cpu=1, memory=64).host is None
    assert put(one, "c", cpu=1, memory=512, hugepages="2MiB").host == "h1"
    assert granted(one, "c")["page_kib"] == 2048
    error = put(one, "d", cpu=1, memory=1024, hugepages="2MiB").error
    assert error is not None
    assert "needs 1024 MiB in pages of 2048 KiB, 512 of 1024 are free" in error.message
    assert isinstance(put(one, "e", cpu=1, memory=1024, hugepages="1GiB").error, NoFit)


def test_devices_are_handed_out_once(one: Rig) -> None:
    assert [put(one, name, pci={"gpu": 1}).host for name in "abc"] == ["h1", "h1", None]
    assert sorted(granted(one, name)["pci"] for name in "ab") == [["0000:01:00.0"], ["0000:02:00.0"]]
    one.delete("a")
    assert put(one, "d", pci={"8086:1572": 1}).host is None, "nobody has declared it"
    assert put(one, "e", pci={"gpu": 1}).host == "h1"


def test_what_was_granted_and_what_a_host_offers_are_shown(one: Rig) -> None:
    put(one, "a", cpu=2, cpu_pinning=True, numa="single", hugepages="2MiB", memory=512, pci={"gpu": 1})
    put(one, "b")
    shown = models.InstanceShown.model_validate(one.show("a")).granted
    assert shown == models.Granted(cpus=[2, 3], cell=0, page_kib=2048, pci=["0000:01:00.0"])
    assert one.show("b")["granted"] is None
    host = models.HostShown.model_validate(one.run(lambda c: hosts.show(c, one.admin, "h1"))).hardware
    assert host is not None
    assert [cell["cpus"] for cell in host.cells] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert (host.pinned_cpus, host.free_cpus) == ([2, 3, 6, 7], [6, 7])
    assert host.hugepages == [models.Pages(page_kib=2048, total_mib=1024, free_mib=512)]
    assert [(device.address, device.free) for device in host.pci] == [("0000:01:00.0", False), ("0000:02:00.0", True)]
    equip(one, "h1", {"cpus": 8}, {})
    assert one.run(lambda c: hosts.show(c, one.admin, "h1"))["hardware"] is None


def test_a_class_and_a_device_by_name_do_not_get_the_same_one(one: Rig) -> None:
    one.ask("a", pci={"gpu": 1}, memory=64)
    one.ask("b", pci={"10de:1eb8": 1}, memory=64)
    one.ask("c", pci={"10de:1eb8": 1}, memory=64)
    outcomes = one.place(one.claim())
    had = [address for name in "abc" for address in granted(one, name).get("pci", ())]
    assert len(had) == len(set(had)) == sum(outcome.host is not None for outcome in outcomes) == 2 - (len(had) < 2)


def test_one_cell_has_room_for_all_of_it(one: Rig) -> None:
    single: dict[str, Any] = {"numa": "single", "memory": 1200, "cpu_pinning": True, "cpu": 1}
    assert [put(one, name, **single).host for name in ("a", "b", "c")] == ["h1", "h1", None]
    assert [(granted(one, n)["cell"], granted(one, n)["cpus"]) for n in ("a", "b")] == [(0, [2]), (1, [6])]


def test_a_driver_that_cannot_hand_out_is_not_asked(one: Rig) -> None:
    t = tables.host
    one.run(lambda c: c.execute(sa.update(t).values(capabilities={"kinds": ["vm"], "grants": ["pinning"]})))
    assert put(one, "a", cpu=1, cpu_pinning=True).host == "h1"
    error = put(one, "b", pci={"gpu": 1}).error
    assert error is not None
    assert "capabilities on h1" in error.message


def test_one_that_moves_is_granted_anew_and_gives_back_when_it_is_there(one: Rig) -> None:
    put(one, "a", cpu=2, cpu_pinning=True, pci={"gpu": 1})
    one.host("h2", cpus=8, memory_mib=4096)
    card = {"address": "0000:0a:00.0", "id": "10de:1eb8", "class": "0302", "iommu_group": 1}
    equip(one, "h2", {**FACTS, "pci": [card]})
    one.submit(Verb.MIGRATE, {"instances": ["a"], "live": False})
    (op,) = one.claim()
    assert one.run(lambda c: moving.reserve(c, op)) == "h2"
    assert granted(one, "a", "other_granted")["pci"] == ["0000:0a:00.0"]
    assert put(one, "b", pci={"10de:2230": 1}).host == "h1"
    assert put(one, "c", pci={"10de:1eb8": 1}).host is None, "both hosts are held while it moves"
    one.run(lambda c: moving.switch(c, op, to="h2"))
    assert granted(one, "a")["pci"] == ["0000:0a:00.0"]
    one.run(lambda c: moving.unreserve(c, op))
    assert granted(one, "a", "other_granted") == {}
    assert put(one, "d", pci={"10de:1eb8": 1}).host == "h1"


def test_what_cannot_be_done_with_it_is_refused_at_once(one: Rig) -> None:
    put(one, "a", cpu=2, cpu_pinning=True, pci={"gpu": 1})
    for verb, body, words in (
        (Verb.RESIZE, {"cpu": 3}, "its size stays"), (Verb.STOP, {}, "what they hold cannot be saved"),
        (Verb.MIGRATE, {"live": True}, "it moves while it is off only"),
    ):  # fmt: skip
        with pytest.raises(Unsupported, match=words):
            one.submit(verb, {"instances": ["a"], **body})
    put(one, "b", cpu=2, cpu_pinning=True)
    one.submit(Verb.STOP, {"instances": ["b"]})


def test_the_explanation_names_what_was_asked_for(one: Rig) -> None:
    put(one, "a", cpu=2, cpu_pinning=True, numa="single", pci={"gpu": 1}, memory=512, hugepages="2MiB")
    told = one.run(lambda c: decisions.newest(c, one.show("a")["id"]))["shape"]
    assert (told["pinned"], told["one_cell"], told["pci"], told["hugepage_kib"]) == (True, True, {"gpu": 1}, 2048)


@pytest.mark.parametrize("wrong", [
    {"cpu_pinning": True, "cpu": 1.5}, {"pci": {"gpu": 0}}, {"pci": {"toaster": 1}}, {"hugepages": "4KiB"},
    {"hugepages": "2MiB", "memory": 513}, {"hugepages": "1GiB", "memory": 1536}, {"numa": "both"},
], ids=str)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InstanceSpec.model_validate({"name": "a", "image": "i", **wrong})


def test_lists_of_numbers() -> None:
    assert (numbers(""), numbers("3"), numbers("0,2-4")) == ([], [3], [0, 2, 3, 4])


WANTED = st.fixed_dictionaries({
    "cpu": st.sampled_from([1, 2, 3]), "memory": st.sampled_from([64, 512, 1024]), "cpu_pinning": st.booleans(),
    "numa": st.sampled_from([None, "single"]), "hugepages": st.sampled_from([None, None, "2MiB"]),
    "pci": st.sampled_from([{}, {}, {"gpu": 1}, {"10de:1eb8": 1}, {"gpu": 2}]),
})  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(st.lists(WANTED, min_size=1, max_size=10), st.lists(st.integers(0, 9), max_size=4), st.booleans())
def test_nothing_is_granted_twice(wanted: list[dict[str, Any]], gone: list[int], at_once: bool) -> None:
    """Whatever is asked for in whatever order, at once or one by one, with some deleted and asked for again."""
    rig = Rig(in_memory())
    rig.network()
    rig.image()
    for name in ("h1", "h2"):
        rig.host(name, cpus=8, memory_mib=4096, cpu_overcommit=1)
        equip(rig, name, FACTS if name == "h1" else PAGED)
    if at_once:
        rig.submit(Verb.DEPLOY, {"instances": [{"name": f"a{n}", "image": "tiny", **s} for n, s in enumerate(wanted)]})
        ops = rig.claim()
        rig.place(ops)
        rig.end(ops, InstanceState.RUNNING)
    else:
        for n, spec in enumerate(wanted):
            put(rig, f"a{n}", **spec)
    check(rig)
    for n in sorted({n for n in gone if n < len(wanted)}):
        rig.delete(f"a{n}") if rig.show(f"a{n}")["host"] else None
        put(rig, f"b{n}", **wanted[n])
    check(rig)


def check(rig: Rig) -> None:
    i, h = tables.instance, tables.host
    query = sa.select(h.c.name, i.c.granted, i.c.spec, i.c.cpu, i.c.memory_mib).join(h, h.c.id == i.c.host_id)
    rows = rig.run(lambda c: c.execute(query).all())
    for host in ("h1", "h2"):
        mine = [row for row in rows if row.name == host]
        for part, offer in (("cpus", [2, 3, 6, 7]), ("pci", ["0000:01:00.0", "0000:02:00.0"])):
            had = [one for row in mine for one in (row.granted or {}).get(part, ())]
            assert len(had) == len(set(had))
            assert set(had) <= set(offer)
        assert sum(row.memory_mib for row in mine if row.spec["hugepages"]) <= 1024
        assert sum(row.cpu for row in mine if not row.spec["cpu_pinning"]) <= 4
        for row in mine:
            spec = InstanceSpec.model_validate(row.spec)
            assert len((row.granted or {}).get("cpus", ())) == (spec.cpu if spec.cpu_pinning else 0)
            assert len((row.granted or {}).get("pci", ())) == sum(spec.pci.values())
            if spec.numa and spec.cpu_pinning:
                assert set(row.granted["cpus"]) <= set(FACTS["cells"][row.granted["cell"]]["cpus"])  # type: ignore[index]
        for number in (0, 1):
            bound = [row for row in mine if (row.granted or {}).get("cell") == number]
            assert sum(row.memory_mib for row in bound) <= 2048
            if host == "h2":
                paged = sum(row.memory_mib for row in bound if row.granted.get("page_kib"))
                assert paged <= (256, 768)[number]


def test_what_is_not_there_after_all_is_said() -> None:
    machine = Machine([{"cpus": [0, 1], "memory_mib": 512}], {0}, {}, [])
    shape = Shape("vm", 1000, 64, 0, pinned=True)
    found, short = grant([machine], [("a", shape, 0), ("b", shape, 0)])
    assert (found["a"]["cpus"], short) == ([0], {"b"})


def test_a_size_that_its_cores_or_pages_do_not_allow_is_refused(one: Rig) -> None:
    put(one, "a", cpu=2, cpu_pinning=True)
    one.run(lambda c: c.execute(sa.update(tables.instance).values(host_id=None, granted=None, state="undeployed")))
    with pytest.raises(Invalid, match="cpu_pinning needs whole cores"):
        one.submit(Verb.RESIZE, {"instances": ["a"], "cpu": 1.5})
