"""Addresses: never two of one, never one that is reserved or outside; and all of a range can be had."""

from __future__ import annotations

from ipaddress import IPv4Interface, ip_address

import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from control import addresses, networks, tables
from control.addresses import Range
from core.errors import NoCapacityNow
from core.states import InstanceState, OperationState
from tests.rig import LAN, Rig, in_memory

INTERFACES = st.builds(
    lambda net, length, own: IPv4Interface((int(ip_address("10.0.0.0")) + net * 2 ** (32 - length) + own, length)),
    st.integers(0, 50), st.integers(24, 32), st.integers(0, 255),
)  # fmt: skip


@given(INTERFACES)
def test_a_bridge_gives_its_whole_subnet_but_three_addresses(cidr: IPv4Interface) -> None:
    given_ = [a for r in addresses.of_bridge(str(cidr)) for a in range(r.first, r.last + 1)]
    hosts = {int(a) for a in cidr.network.hosts()} if cidr.network.prefixlen <= 30 else set()
    assert sorted(given_) == sorted(hosts - {int(cidr.ip)})
    assert len(set(given_)) == len(given_)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=4), st.sets(st.integers(0, 200)))
def test_free_addresses_are_those_not_taken_and_their_count_agrees(
    spans: list[tuple[int, int]], taken: set[int]
) -> None:
    ranges = [Range(n * 50 + first, n * 50 + first + more, 24, "") for n, (first, more) in enumerate(spans)]
    every = {a for r in ranges for a in range(r.first, r.last + 1)}
    drawn = [address for _, address in addresses.free(ranges, set(taken))]
    assert set(drawn) == every - taken
    assert len(drawn) == len(set(drawn)) == addresses.count_free(ranges, taken)


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_leases_are_unique_whatever_comes_and_goes(data: st.DataObject) -> None:
    """Two networks (a small pool, and one addressed by host with the same subnet on two hosts), 2 hosts."""
    rig = Rig(in_memory())
    rig.network(ranges=[{"first": "10.9.0.250", "last": "10.9.0.254"}])  # .254 is the gateway
    by_host = {**LAN, "name": "box", "bridge": "lxcbr0", "addressing": "host", "ranges": [], "default_for": []}
    rig.network(**{**by_host, "subnet": None, "gateway": None})
    for name in ("h1", "h2"):
        rig.host(name, cpus=64, memory_mib=65536, bridges={"br0": "10.9.0.1/24", "lxcbr0": "10.0.3.1/29"})
    rig.image()
    alive: list[str] = []
    for turn in range(data.draw(st.integers(1, 6))):
        count = data.draw(st.integers(1, 4))
        nets = data.draw(st.sampled_from([("lan",), ("box",), ("lan", "box"), ("lan", "lan")]))
        rig.ask(*(f"i-{turn}-{n}" for n in range(count)), nics=[{"network": name} for name in nets])
        ops = rig.claim()
        for op, outcome in zip(ops, rig.place(ops), strict=True):
            if outcome.error is None:
                alive.append(op.subject_name)
                rig.end([op], InstanceState.RUNNING)
            else:
                assert isinstance(outcome.error, NoCapacityNow)
                rig.end([op], InstanceState.FAILED, OperationState.FAILED)
        _check(rig, len(alive))
        for name in data.draw(st.sets(st.sampled_from(alive))) if alive else set():
            rig.delete(name)
            alive.remove(name)


def _check(rig: Rig, alive: int) -> None:
    t, net = tables.lease, tables.network
    rows = rig.run(lambda c: c.execute(
        sa.select(net.c.name, t.c.address, t.c.mac, t.c.instance_id).where(t.c.network_id == net.c.id)
    ).all())  # fmt: skip
    assert len({(row.name, row.address) for row in rows}) == len(rows)
    assert len({row.mac for row in rows}) == len(rows)
    assert len({row.instance_id for row in rows}) == alive
    allowed = {"lan": {f"10.9.0.{n}" for n in range(250, 254)}, "box": {f"10.0.3.{n}" for n in range(2, 7)}}
    for row in rows:
        assert row.address in allowed[row.name]
    shown = {n["name"]: n["free"] for n in rig.run(lambda c: networks.list_(c, rig.admin))}
    assert shown["lan"] == 4 - sum(row.name == "lan" for row in rows)
