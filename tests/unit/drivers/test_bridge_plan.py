"""What would be done to a host's bridges, from what `ip` printed and what is wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core import errors
from drivers.network.base import NetworkSpec, NicSpec
from drivers.network.bridge import BridgeNetwork, commands, interfaces_text, parse
from tests.unit.drivers.scripted import Scripted

GOLDEN = Path(__file__).parent / "golden" / "bridge"
LOOKED = (GOLDEN / "looked.txt").read_text()
CASES = json.loads((GOLDEN / "cases.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_plan(case: dict[str, Any]) -> None:
    want = NetworkSpec("lan", "bridge", **case["want"])
    if "error" in case:
        with pytest.raises(getattr(errors, case["error"])) as caught:
            commands(parse(LOOKED), want)
        assert case["says"] in str(caught.value)
        return
    assert [" ".join(argv) for argv in commands(parse(LOOKED), want)] == case["commands"]


def test_what_is_seen() -> None:
    links = parse(LOOKED)
    assert links.management == "br0"
    assert [(b.name, b.addresses, b.ports, b.up) for b in links.bridges()] == [
        ("br0", ("192.0.2.11/24",), ("eth0",), True),
        ("br1", ("198.51.100.11/24",), ("eth1", "vnet0"), True),
        ("br2", (), (), False),
    ]


async def test_a_nic_costs_no_look_while_the_last_one_is_fresh() -> None:
    transport = Scripted(lambda _: (0, LOOKED, ""))
    network = BridgeNetwork(transport)
    for index in range(3):
        await network.ensure_nic(NetworkSpec("lan", "bridge", "br1"), NicSpec(index, "52:54:00:00:00:01"))
    assert len(transport.asked) == 1
    with pytest.raises(errors.HostFault):
        await network.ensure_nic(NetworkSpec("lan", "bridge", "br9"), NicSpec(0, "52:54:00:00:00:01"))


async def test_a_tap_is_found_by_its_guests_mac() -> None:
    network = BridgeNetwork(Scripted(lambda _: (0, LOOKED, "")))
    assert await network.interfaces_of(["52:54:00:7c:55:71"]) == ["vnet0"]
    assert await network.interfaces_of(["52:54:00:7c:55:72"]) == []


def test_lines_for_the_next_boot() -> None:
    text = interfaces_text(NetworkSpec("lan", "bridge", "br9", "10.9.0.1/24", create=True))
    assert "auto br9\niface br9 inet static\n    address 10.9.0.1/24\n" in text
    assert "iface br9 inet manual\n" in interfaces_text(NetworkSpec("lan", "bridge", "br9", create=True))
