"""Which veths are left over, by what `ip -j link show type veth` says."""

from __future__ import annotations

from typing import Any

import pytest

from drivers.hypervisor.lxd_sweep import strays


def end(index: int, name: str, **peer: Any) -> dict[str, Any]:
    return {"ifindex": index, "ifname": name, **peer}


@pytest.mark.parametrize(
    ("links", "found"),
    [
        ([], set()),
        ([end(2, "mgmt0", link_index=42, link_netnsid=0)], set()),
        ([end(7, "veth0a1b2c3d", link_index=6, link_netnsid=1)], set()),  # its other end is in a container
        ([end(7, "veth0a1b2c3d", link="vethffffffff"), end(8, "vethffffffff", link="veth0a1b2c3d")],
         {frozenset({(7, "veth0a1b2c3d"), (8, "vethffffffff")})}),
        ([end(7, "veth0", link="veth1"), end(8, "veth1", link="veth0")], set()),  # somebody's own
        ([end(7, "veth0a1b2c3d", link="uplink"), end(8, "uplink", link="veth0a1b2c3d")], set()),
    ],
)  # fmt: skip
def test_strays(links: list[dict[str, Any]], found: set[Any]) -> None:
    assert strays(links) == found
