"""Leases: an address (or DHCP) and a MAC for every NIC of an instance on its host."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import repeat
from typing import NamedTuple

import sqlalchemy as sa

from blueprints.instance import InstanceSpec, NicSpec
from control import addresses, sql, tables
from control.addresses import Range
from control.placing_view import Cloud
from core.ids import mac_address, new_ids

_T, _NET = tables.lease, tables.network
Placed = tuple[str, InstanceSpec, int]  # instance id, spec, index of the host in the cloud's view
_HELD = sa.select(_T.c.instance_id, _T.c.nic_index, _T.c.id, _NET.c.addressing).where(
    sql.among(_T.c.instance_id), _NET.c.id == _T.c.network_id
)
_TAKEN = sa.select(_T.c.mac).where(sql.among(_T.c.mac))


class Held(NamedTuple):
    """A lease that a NIC has. stays: it is good on every host, so it stays when the instance moves."""

    id: str
    stays: bool


class Given(NamedTuple):
    """What one NIC gets. address None: DHCP."""

    instance_id: str
    nic_index: int
    network_id: str
    address: str | None
    prefix_length: int
    gateway: str


def draw(cloud: Cloud, placed: Sequence[Placed]) -> tuple[list[Given], set[str]]:
    """Return a lease for every NIC, fixed addresses first, and the instances for which an address was missing."""
    pool = _Pool(cloud)
    given: list[Given] = []
    short: set[str] = set()
    specs = {id(spec): spec for _, spec, _ in placed}  # of what was made alike there is one
    for fixed in (True, False):
        wanted = {key: [one for one in _numbered(spec) if bool(one[1].address) is fixed] for key, spec in specs.items()}
        for instance_id, spec, h in placed:
            for index, nic in wanted[id(spec)]:
                found = pool.take(nic, h)
                if found is None:
                    short.add(instance_id)
                else:
                    given.append(Given(instance_id, index, *found))
    return [one for one in given if one.instance_id not in short], short


def _numbered(spec: InstanceSpec) -> list[tuple[int, NicSpec]]:
    return list(zip(spec.nic_numbers(), spec.nics, strict=True))


class _Pool:
    """The addresses of the cloud's networks while a batch draws from them."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.taken = {
            net.id: cloud.leased[net.id] | addresses.reserved(net.subnet, net.gateway)
            for net in cloud.networks.values()
        }
        self.free: dict[tuple[str, tuple[Range, ...]], Iterator[tuple[Range, int]]] = {}
        self.on: dict[tuple[str, int], Iterator[tuple[Range, int]]] = {}  # the same by host

    def take(self, nic: NicSpec, h: int) -> tuple[str, str | None, int, str] | None:
        """Return network id, address, prefix length, gateway; None: there is no such address to give."""
        net = self.cloud.networks.get(nic.network)
        if net is None:
            return None
        if net.addressing == "dhcp":
            return net.id, None, 0, ""
        taken = self.taken[net.id]
        if nic.address:
            number = addresses.number(nic.address)
            item = addresses.range_with(self.cloud.ranges_on(net, h), number)
            found = (item, number) if item is not None and number not in taken else None
        else:
            stream = self.on.get((net.id, h))
            if stream is None:
                key = (net.id, self.cloud.ranges_on(net, h))
                stream = self.on[net.id, h] = self.free.setdefault(key, addresses.free(key[1], taken))
            found = next(stream, None)
        if found is None:
            return None
        taken.add(found[1])
        return net.id, addresses.text(found[1]), found[0].prefix_length, found[0].gateway


def held(c: sa.Connection, instance_ids: Collection[str]) -> dict[str, dict[int, Held]]:
    """Return instance id -> number of a NIC -> the lease that it has."""
    found: dict[str, dict[int, Held]] = {}
    for instance_id, index, lease_id, addressing in sql.tuples_among(c, instance_ids, _HELD):
        found.setdefault(instance_id, {})[index] = Held(lease_id, addressing != "host")
    return found


def staying(nics: Mapping[int, Held]) -> frozenset[int]:
    """Return the numbers of those NICs of an instance whose lease stays when it moves."""
    return frozenset(index for index, one in nics.items() if one.stays)


def kept(c: sa.Connection, instance_ids: Collection[str]) -> dict[str, frozenset[int]]:
    """Return instance id -> numbers of its NICs whose lease is good on every host, so that it stays when it moves."""
    return {instance_id: staying(nics) for instance_id, nics in held(c, instance_ids).items()}


def undrawn(spec: InstanceSpec, kept: Collection[int]) -> InstanceSpec:
    """Return a spec with only those NICs that need an address, each with its number."""
    numbered = zip(spec.nics, spec.nic_numbers(), strict=True)
    return spec.model_copy(
        update={"nics": tuple(nic.model_copy(update={"index": n}) for nic, n in numbered if n not in kept)}
    )


def let_go(c: sa.Connection, instance_id: str) -> None:
    """Free the addresses that are good on the instance's present host only; the MACs stay."""
    net = tables.network
    by_host = sa.select(net.c.id).where(net.c.addressing == "host")
    c.execute(
        sa.update(_T).where(_T.c.instance_id == instance_id, _T.c.network_id.in_(by_host))
        .values(address=None, prefix_length=0, gateway="")
    )  # fmt: skip


def write(
    c: sa.Connection, given: Sequence[Given], at: datetime, known: Mapping[str, Mapping[int, Held]] | None = None
) -> None:
    """Write leases, each with a MAC that nobody else has; a NIC that has a lease keeps its MAC.

    known: what these instances hold already, if it was read in this transaction.
    """
    if known is None:
        known = held(c, {one.instance_id for one in given})
    old = [one for one in given if one.nic_index in known.get(one.instance_id, ())]
    sql.update_each(c, _T, [
        {"id": known[one.instance_id][one.nic_index].id, "address": one.address, "prefix_length": one.prefix_length,
         "gateway": one.gateway}
        for one in old
    ])  # fmt: skip
    new = [one for one in given if one.nic_index not in known.get(one.instance_id, ())] if old else given
    if new:
        columns = dict(zip(Given._fields, zip(*new, strict=True), strict=True))
        made = list(repeat(at, len(new)))
        sql.insert_columns(c, _T, {"id": new_ids(len(new)), "mac": _macs(c, new), "created_at": made, **columns})


def _macs(c: sa.Connection, given: Sequence[Given]) -> list[str]:
    """Return a MAC for each: the one that follows from instance and index, or one further on where that is taken.

    24 bits of hash are few: among 5000 NICs two are alike about every second time.
    """
    macs = [mac_address(one.instance_id, one.nic_index) for one in given]
    taken = {str(mac) for (mac,) in sql.tuples_among(c, macs, _TAKEN)}
    for at, one in enumerate(given):
        turn = 0
        while macs[at] in taken:
            turn += 1
            macs[at] = mac_address(one.instance_id, one.nic_index + 1000 * turn)
            if c.execute(sa.select(_T.c.id).where(_T.c.mac == macs[at])).first() is not None:
                taken.add(macs[at])
        taken.add(macs[at])
    return macs
