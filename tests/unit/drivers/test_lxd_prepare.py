"""What an LXD host lacks: planned from what it has."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import HostFault
from drivers.hypervisor.lxd_prepare import changes

POOL = {"name": "default", "driver": "zfs"}


def network(name: str, *, managed: bool, address: str = "") -> dict[str, Any]:
    config = {"ipv4.address": address} if address else {}
    return {"name": name, "type": "bridge", "managed": managed, "config": config}


def test_a_fresh_host_gets_a_pool_and_a_bridge() -> None:
    found = changes([], [network("br0", managed=False)], [])
    assert [(change.collection, change.body) for change in found] == [
        ("storage-pools", {"name": "default", "driver": "dir"}),
        ("networks", {"name": "lxcbr0", "type": "bridge",
                      "config": {"ipv4.address": "auto", "ipv4.nat": "true", "ipv6.address": "none"}}),
    ]  # fmt: skip


def test_an_address_of_the_operators_plan_is_not_translated() -> None:
    (found,) = changes([POOL], [], [("lxcbr0", "10.1.2.1/24")])
    assert found.body["config"] == {"ipv4.address": "10.1.2.1/24", "ipv4.nat": "false", "ipv6.address": "none"}
    assert found.words == "bridge lxcbr0 10.1.2.1/24"


@pytest.mark.parametrize("bridges", [[], [("lxdbr0", "")], [("lxdbr0", "10.1.2.1/24")], [("br0", "10.9.9.1/24")]])
def test_what_is_there_is_left(bridges: list[tuple[str, str]]) -> None:
    networks = [network("lxdbr0", managed=True, address="10.1.2.1/24"), network("br0", managed=False)]
    assert changes([POOL], networks, bridges) == []


def test_another_address_is_the_operators_to_settle() -> None:
    with pytest.raises(HostFault) as caught:
        changes([POOL], [network("lxcbr0", managed=True, address="10.1.2.1/24")], [("lxcbr0", "10.9.9.1/24")])
    assert caught.value.evidence == {"bridge": "lxcbr0", "seen": "10.1.2.1/24", "wanted": "10.9.9.1/24"}
