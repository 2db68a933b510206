"""Leases: an address (or DHCP) and a MAC for every NIC of an instance on its host."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from blueprints.instance import InstanceSpec, NicSpec
from control import addresses, sql, tables
from control.addresses import Range
from control.placing_view import Cloud
from core.ids import mac_address, new_id

_T = tables.lease
Placed = tuple[str, InstanceSpec, int]  # instance id, spec, index of the host in the cloud's view


@dataclass(frozen=True)
class Given:
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
    for fixed in (True, False):
        for instance_id, spec, h in placed:
            for index, nic in zip(spec.nic_numbers(), spec.nics, strict=True):
                if bool(nic.address) is not fixed:
                    continue
                found = pool.take(nic, h)
                if found is None:
                    short.add(instance_id)
                else:
                    given.append(Given(instance_id, index, *found))
    return [one for one in given if one.instance_id not in short], short


class _Pool:
    """The addresses of the cloud's networks while a batch draws from them."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.taken = {
            net.id: set(cloud.leased[net.id]) | addresses.reserved(net.subnet, net.gateway)
            for net in cloud.networks.values()
        }
        self.free: dict[tuple[str, tuple[Range, ...]], Iterator[tuple[Range, int]]] = {}

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
            key = (net.id, self.cloud.ranges_on(net, h))
            if key not in self.free:
                self.free[key] = addresses.free(key[1], taken)
            found = next(self.free[key], None)
        if found is None:
            return None
        taken.add(found[1])
        return net.id, addresses.text(found[1]), found[0].prefix_length, found[0].gateway


def kept(c: sa.Connection, instance_ids: Collection[str]) -> dict[str, set[int]]:
    """Return instance id -> numbers of its NICs whose lease is good on every host, so that it stays when it moves."""
    net = tables.network
    rows = sql.fetch_in(
        c, set(instance_ids),
        lambda part: sa.select(_T.c.instance_id, _T.c.nic_index).where(
            _T.c.instance_id.in_(part), net.c.id == _T.c.network_id, net.c.addressing != "host"
        ),
    )
    found: dict[str, set[int]] = {}
    for row in rows:
        found.setdefault(row["instance_id"], set()).add(row["nic_index"])
    return found


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


def write(c: sa.Connection, given: Sequence[Given], at: datetime) -> None:
    """Write leases, each with a MAC that nobody else has; a NIC that has a lease keeps its MAC."""
    known = _known(c, given)
    sql.update_each(c, _T, [
        {"id": known[one.instance_id, one.nic_index], "address": one.address, "prefix_length": one.prefix_length,
         "gateway": one.gateway}
        for one in given if (one.instance_id, one.nic_index) in known
    ])  # fmt: skip
    given = [one for one in given if (one.instance_id, one.nic_index) not in known]
    macs = _macs(c, given)
    sql.insert(c, _T, [
        {"id": new_id(), "network_id": one.network_id, "instance_id": one.instance_id, "nic_index": one.nic_index,
         "mac": mac, "address": one.address, "prefix_length": one.prefix_length, "gateway": one.gateway,
         "created_at": at}
        for one, mac in zip(given, macs, strict=True)
    ])  # fmt: skip


def _known(c: sa.Connection, given: Sequence[Given]) -> dict[tuple[str, int], str]:
    rows = sql.fetch_in(
        c, {one.instance_id for one in given},
        lambda part: sa.select(_T.c.id, _T.c.instance_id, _T.c.nic_index).where(_T.c.instance_id.in_(part)),
    )  # fmt: skip
    return {(row["instance_id"], row["nic_index"]): row["id"] for row in rows}


def _macs(c: sa.Connection, given: Sequence[Given]) -> list[str]:
    """Return a MAC for each: the one that follows from instance and index, or one further on where that is taken.

    24 bits of hash are few: among 5000 NICs two are alike about every second time.
    """
    macs = [mac_address(one.instance_id, one.nic_index) for one in given]
    rows = sql.fetch_in(c, set(macs), lambda part: sa.select(_T.c.mac).where(_T.c.mac.in_(part)))
    taken = {str(row["mac"]) for row in rows}
    for at, one in enumerate(given):
        turn = 0
        while macs[at] in taken:
            turn += 1
            macs[at] = mac_address(one.instance_id, one.nic_index + 1000 * turn)
            if c.execute(sa.select(_T.c.id).where(_T.c.mac == macs[at])).first() is not None:
                taken.add(macs[at])
        taken.add(macs[at])
    return macs
