"""Placement never takes what is not there, leaves nobody out who fits, and tells the truth about why."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from control.placement import engine
from control.placement.batch import runs
from control.placement.explain import failed_record
from control.placement.filters import needs_of
from control.placement.look import could_ever, fits, room_of
from control.placement.model import Request, Shape
from control.placement.work import start
from tests.property.oracle import Machine, view_of

IMAGE_MIB = 50
SHAPES = st.builds(
    Shape,
    kind=st.sampled_from(["vm", "container"]),
    cpu_m=st.sampled_from([100, 500, 1000, 2000, 8000]),
    memory_mib=st.sampled_from([64, 256, 1024, 4096]),
    disk_mib=st.sampled_from([0, 10, 100, 500]),
    image=st.sampled_from(["a", "b"]),
    image_mib=st.just(IMAGE_MIB),
    cluster=st.sampled_from([None, None, "default", "edge"]),
    host=st.sampled_from([None, None, None, "h0", "h1"]),
    datastore=st.sampled_from([None, None, "local", "fast"]),
    labels=st.sampled_from([(), (), (("disk", "ssd"),)]),
    nics=st.sampled_from([(), (("lan", 1),), (("lan", 1), ("wan", 2))]),
    avoid=st.sampled_from([frozenset(), frozenset(), frozenset({"h0"})]),
)


@st.composite
def clouds(draw: st.DrawFn) -> tuple[list[Machine], dict[str, list[int]]]:
    """Up to five hosts, some of them partly used, and two address pools."""
    machines = [
        Machine(
            f"h{n}",
            state=draw(st.sampled_from(["ready", "ready", "ready", "disabled", "unreachable"])),
            cluster=draw(st.sampled_from(["default", "edge"])),
            labels=draw(st.sampled_from([{}, {"disk": "ssd"}])),
            kinds=draw(st.sampled_from([("vm",), ("container",), ("vm", "container")])),
            cpus=draw(st.sampled_from([1, 4, 8])),
            cpu_overcommit=draw(st.sampled_from([1, 4])),
            cpu_used_m=draw(st.sampled_from([0, 500, 4000])),
            memory_mib=draw(st.sampled_from([512, 2048, 8192])),
            memory_used_mib=draw(st.sampled_from([0, 256])),
            instances=draw(st.integers(0, 2)),
            disk=draw(st.sampled_from([{}, {"local": (1000, 0)}, {"local": (600, 300), "fast": (200, 0)}])),
            networks=draw(st.sampled_from([(), ("lan",), ("lan", "wan")])),
            images=frozenset(draw(st.sets(st.sampled_from(["a", "b"])))),
        )
        for n in range(draw(st.integers(0, 5)))
    ]
    return machines, {"lan": list(range(draw(st.integers(0, 6)))), "wan": list(range(draw(st.integers(0, 6))))}


def requests(shapes: list[Shape]) -> list[Request]:
    return [Request(f"r{n}", f"r{n}", shape) for n, shape in enumerate(shapes)]


@settings(deadline=None, max_examples=150)
@given(clouds(), st.lists(SHAPES, min_size=1, max_size=12))
def test_a_batch_takes_what_is_there_and_leaves_nobody_out_who_fits(
    cloud: tuple[list[Machine], dict[str, list[int]]], shapes: list[Shape]
) -> None:
    machines, pools = cloud
    choices = engine.choose(view_of(machines, pools), requests(shapes))
    assert [choice.request.key for choice in choices] == [f"r{n}" for n in range(len(shapes))]
    machines, pools = copy.deepcopy(machines), copy.deepcopy(pools)
    by_key = {choice.request.key: choice for choice in choices}
    for shape, members in runs(requests(shapes), np.arange(len(shapes))):
        for request in (requests(shapes)[place] for place in members):
            choice = by_key[request.key]
            if choice.host is not None:
                machine = machines[choice.host]
                assert machine.first_failing(shape, pools, IMAGE_MIB) is None
                assert choice.datastore in machine.disk
                machine.take(shape, str(choice.datastore), pools)
    for machine, before in zip(machines, cloud[0], strict=True):
        assert machine.cpu_used_m <= max(before.cpu_used_m, machine.cpus * machine.cpu_overcommit * 1000)
        assert machine.memory_used_mib <= max(before.memory_used_mib, machine.memory_mib)
        assert all(used <= total for total, used in machine.disk.values())
    for choice in choices:
        if choice.host is None:
            assert all(m.first_failing(choice.request.shape, pools, IMAGE_MIB) for m in machines)


@settings(deadline=None, max_examples=150)
@given(clouds(), SHAPES)
def test_the_explanation_names_every_hosts_first_failing_constraint(
    cloud: tuple[list[Machine], dict[str, list[int]]], shape: Shape
) -> None:
    machines, pools = cloud
    (choice,) = engine.choose(view_of(machines, pools), requests([shape]))
    told = {entry["host"]: entry.get("constraint") for entry in choice.record["hosts"]}
    assert told == {m.name: m.first_failing(shape, pools, IMAGE_MIB) for m in machines}
    for entry in choice.record["hosts"]:
        if entry.get("constraint") in ("cpu", "memory"):
            assert entry["need"] > entry["free"] or entry["need"] > entry["limit"]
        assert "constraint" not in entry or entry["reason"]


@settings(deadline=None, max_examples=150)
@given(clouds(), SHAPES)
def test_the_smallest_change_would_let_it_fit_and_is_needed(
    cloud: tuple[list[Machine], dict[str, list[int]]], shape: Shape
) -> None:
    machines, pools = cloud
    view = view_of(machines, pools)
    work = start(view)
    if fits(view, work, shape):
        return
    change = failed_record(view, work, shape, changes=True)["change"]
    if change is None:
        return
    host = next(m for m in machines if m.name == change["host"])
    changed, changed_host, pools = shape, copy.deepcopy(host), copy.deepcopy(pools)
    for one in change["changes"]:
        changed = _applied(one, changed, changed_host, pools)
    assert changed_host.first_failing(changed, pools, IMAGE_MIB) is None
    grown = [one["field"] for one in change["changes"]] == ["hosts"]
    assert change["text"].endswith(f"one more host like {host.name} would hold it" if grown else f"fit on {host.name}")
    if [one["field"] for one in change["changes"]] == ["memory_mib"]:
        more = replace(changed, memory_mib=changed.memory_mib + 1)
        assert all(m.first_failing(more, pools, IMAGE_MIB) for m in machines)


def _applied(change: dict[str, Any], shape: Shape, host: Machine, pools: dict[str, list[int]]) -> Shape:
    """Return the shape, or alter the host, as the change says."""
    field, to = change["field"], change["to"]
    if field == "hosts":  # a new one holds nothing
        host.cpu_used_m = host.memory_used_mib = host.instances = 0
        host.disk, host.images = {name: (total, 0) for name, (total, _) in host.disk.items()}, frozenset()
        return shape
    if field.startswith("host "):
        host.state = to
        return shape
    if field == "nics":
        for name, count in shape.nics:
            host.networks = (*host.networks, name)
            pools[name] = [*pools[name], *range(count)]
        return shape
    simple: dict[str, dict[str, Any]] = {
        "cpu": {"cpu_m": round(1000 * (to or 0))},
        "memory_mib": {"memory_mib": to},
        "disk_mib": {"disk_mib": to},
        "requirements.host": {"host": None},
        "requirements.cluster": {"cluster": None},
        "requirements.datastore": {"datastore": None},
        "requirements.host_labels": {"labels": ()},
        "avoid": {"avoid": frozenset()},
    }
    return replace(shape, **simple[field])


@settings(deadline=None, max_examples=100)
@given(clouds(), SHAPES)
def test_what_fits_now_could_ever_fit_and_what_never_fits_does_not_fit_when_empty(
    cloud: tuple[list[Machine], dict[str, list[int]]], shape: Shape
) -> None:
    machines, pools = cloud
    view = view_of(machines, pools)
    ever = could_ever(view, shape)
    if fits(view, start(view), shape):
        assert ever
    bare = copy.deepcopy(machines)
    for m in bare:
        m.cpu_used_m = m.memory_used_mib = 0
        m.disk = {name: (total, 0) for name, (total, _) in m.disk.items()}
        m.state = "ready" if m.state == "unreachable" else m.state
    assert ever == any(m.first_failing(shape, pools, IMAGE_MIB) is None for m in bare)


@settings(deadline=None, max_examples=100)
@given(clouds(), SHAPES, st.integers(1, 40))
def test_many_of_a_shape_are_placed_as_often_as_one_by_one(
    cloud: tuple[list[Machine], dict[str, list[int]]], shape: Shape, count: int
) -> None:
    machines, pools = cloud
    view = view_of(machines, pools)
    together = engine.choose(view, requests([shape] * count))
    placed = 0
    machines, pools = copy.deepcopy(machines), copy.deepcopy(pools)
    for _ in range(count):
        (one,) = engine.choose(view_of(machines, pools), requests([shape]))
        if one.host is None:
            break
        machines[one.host].take(shape, str(one.datastore), pools)
        placed += 1
    assert sum(choice.host is not None for choice in together) == placed


@given(clouds(), SHAPES)
@settings(deadline=None, max_examples=100)
def test_looking_changes_nothing(cloud: tuple[list[Machine], dict[str, list[int]]], shape: Shape) -> None:
    machines, pools = cloud
    view = view_of(machines, pools)
    hosts = np.arange(len(machines))
    before = room_of(view, start(view), shape, needs_of(view, shape), hosts).tolist()
    engine.choose(view, requests([shape] * 3))
    assert room_of(view, start(view), shape, needs_of(view, shape), hosts).tolist() == before
