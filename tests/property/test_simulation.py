"""A simulation holds what hosts have, and comes out as one that counts everything anew at each moment."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import groupby

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from control.placement import engine
from control.placement.model import Request, Shape
from control.placement.weights import POLICIES
from control.simulation.arrivals import Arrival
from control.simulation.fleet import Fleet, Group, Leaving, Network, view_of
from control.simulation.run import Outcome, Run
from core.states import HostState

MIB = 1024
FLEETS = st.builds(
    Fleet,
    st.lists(
        st.builds(
            Group, st.integers(1, 3), st.sampled_from([2000, 8000]), st.sampled_from([4 * MIB, 16 * MIB]),
            st.sampled_from(["default", "edge"]), disk_mib=st.sampled_from([8 * MIB, 20 * MIB]),
        ), min_size=1, max_size=2,
    ).map(tuple),
    networks=st.sampled_from([
        (Network("lan", 40), Network("dmz", 3)), (Network("lan", 2), Network("dmz", 9, (("cluster", "edge"),))),
    ]),
)  # fmt: skip

STATES = st.sampled_from([HostState.FENCED, HostState.DRAINING])


@st.composite
def arrivals(draw: st.DrawFn) -> list[Arrival]:
    """Up to forty arrivals at few moments, so that some come together and some go while others come."""
    sizes = st.tuples(st.sampled_from([500, 1000, 4000]), st.sampled_from([512, 2048, 8192]))
    lives = st.sampled_from([0.0, 1.0, 2.0, 7.0, math.inf])
    images = st.sampled_from([("", 0), ("", 0), ("a", 3 * MIB), ("b", 0)])
    about = st.tuples(st.sampled_from([0, 0, MIB, 5 * MIB]), images, st.sampled_from(["", "", "lan", "dmz"]))
    rows = draw(st.lists(st.tuples(st.integers(0, 9), lives, sizes, st.sampled_from("ab"), about), max_size=40))
    rows.sort(key=lambda row: row[0])
    return [
        Arrival(f"i{n}", float(at), life, cpu, memory, owner, disk_mib=disk, image=image, image_mib=size, network=net)
        for n, (at, life, (cpu, memory), owner, (disk, (image, size), net)) in enumerate(rows)
    ]


def request(one: Arrival) -> Request:
    nics = ((one.network, 1),) if one.network else ()
    shape = Shape("vm", one.cpu_m, one.memory_mib, one.disk_mib, one.image, one.image_mib, nics=nics)
    return Request(one.name, one.name, shape, one.owner)


def naive(come: list[Arrival], fleet: Fleet, policy: str) -> tuple[dict[str, str], int]:
    """Return where each arrival goes, and how many copies of images: at each moment all that runs is counted again."""
    went: dict[str, str] = {}
    copies: dict[tuple[str, str], int] = {}  # host, image -> what it takes
    for at_s, batch in groupby(come, key=lambda one: one.arrival_s):
        view = view_of(fleet)
        images = {image: np.array([(name, image) in copies for name in view.names]) for image in "ab"}
        view = replace(view, images=images)
        for (name, _), size in copies.items():
            view.stores["local"].free_mib[view.names.index(name)] -= size
        for one in come:
            if one.name in went and one.end_s > at_s:
                h = view.names.index(went[one.name])
                view.cpu_left_m[h] -= one.cpu_m
                view.memory_left_mib[h] -= one.memory_mib
                view.instances[h] += 1
                view.stores["local"].left_mib[h] -= one.disk_mib
                view.stores["local"].free_mib[h] -= one.disk_mib
                if one.network:
                    view.nets[one.network].left[0] -= 1
        for choice in engine.choose(view, [request(one) for one in batch], policy=policy):
            if choice.host is not None:
                name, shape = view.names[choice.host], choice.request.shape
                went[choice.request.name] = name
                if shape.image:
                    copies.setdefault((name, shape.image), shape.image_mib)
    return went, len(copies)


def check_capacity(come: list[Arrival], fleet: Fleet, out: Outcome) -> None:
    limits = view_of(fleet)
    for moment in {one.arrival_s for one in come}:
        cpu, memory, disk = np.zeros((3, len(fleet)), np.int64)
        leases = dict.fromkeys(limits.nets, 0)
        for one in come:
            if one.name in out.hosts and one.arrival_s <= moment < max(one.end_s, one.arrival_s + 1e-9):
                h = limits.names.index(out.hosts[one.name])
                cpu[h] += one.cpu_m
                memory[h] += one.memory_mib
                disk[h] += one.disk_mib
                if one.network:
                    leases[one.network] += 1
                    assert limits.nets[one.network].reach[h]
        assert (disk <= limits.stores["local"].limit_mib).all()
        assert all(count <= limits.nets[name].whole[0] for name, count in leases.items())
        assert (cpu <= limits.cpu_limit_m).all()
        assert (memory <= limits.memory_limit_mib).all()


@settings(deadline=None, max_examples=40)
@given(arrivals(), FLEETS, st.sampled_from(sorted(POLICIES)))
def test_it_agrees_with_counting_anew_and_holds_capacity(come: list[Arrival], fleet: Fleet, policy: str) -> None:
    out = Run(come, fleet, policy).all()
    assert (out.hosts, out.image_copies) == naive(come, fleet, policy)
    assert (out.placed, out.rejected) == (len(out.hosts), len(come) - len(out.hosts))
    assert (out.first_rejection is None) == (out.rejected == 0)
    check_capacity(come, fleet, out)


@settings(deadline=None, max_examples=40)
@given(arrivals(), FLEETS, st.integers(0, 9), STATES, st.integers(0, 3))
def test_hosts_that_leave_take_nothing_with_them_that_fits_elsewhere(
    come: list[Arrival], fleet: Fleet, at_s: int, state: HostState, seed: int
) -> None:
    """What is left on each host is what it has less what it holds, whatever moved; nobody is counted twice."""
    run = Run(come, replace(fleet, leaving=(Leaving(1, float(at_s), state),)), seed=seed)
    out = run.all()
    assert (out.stuck if state == HostState.FENCED else out.stranded) == 0
    view = run.world.view
    held = np.zeros((3, len(fleet)), np.int64)
    for h, shape in run.world.where.values():
        held[:, h] += (shape.cpu_m, shape.memory_mib, 1)
    assert (view.cpu_left_m == view.cpu_limit_m - held[0]).all()
    assert (view.memory_left_mib == view.memory_limit_mib - held[1]).all()
    assert (view.instances == held[2]).all()
    assert (view.cpu_left_m >= 0).all()
    assert (view.memory_left_mib >= 0).all()
    store = view.stores["local"]
    disks = np.bincount([h for h, _ in run.world.where.values()], minlength=len(fleet),
                        weights=[shape.disk_mib for _, shape in run.world.where.values()])  # fmt: skip
    assert (store.left_mib == store.limit_mib - disks).all()
    assert (store.free_mib >= 0).all()
    for name, net in view.nets.items():
        held_of = sum(count for _, shape in run.world.where.values() for one, count in shape.nics if one == name)
        assert net.left[0] == net.whole[0] - held_of >= 0
    gone = [h for h, one in enumerate(view.states) if one == state]
    assert len(gone) == 1
    assert state == HostState.DRAINING or not held[2][gone].any()
    assert held[2][gone].sum() <= out.stuck
