"""The tiny guest's reader of network-config: YAML or JSON, any order of keys, several cards."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

READER = Path(__file__).resolve().parents[3] / "lab/images/tiny/network.awk"
STATIC = {"addresses": ["198.18.17.100/24"], "match": {"macaddress": "52:54:00:AA:00:01"}}
ROUTED = {**STATIC, "routes": [{"to": "default", "via": "198.18.17.1"}]}
NAMED = {**STATIC, "gateway4": "198.18.17.1", "nameservers": {"search": ["lan"], "addresses": ["9.9.9.9", "1.1.1.1"]}}
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "static": ({"eth0": STATIC}, ["52:54:00:aa:00:01 198.18.17.100/24 - -"]),
    "route": ({"nic0": {"set-name": "eth0", **ROUTED}}, ["52:54:00:aa:00:01 198.18.17.100/24 198.18.17.1 -"]),
    "servers": ({"eth0": NAMED}, ["52:54:00:aa:00:01 198.18.17.100/24 198.18.17.1 9.9.9.9,1.1.1.1"]),
    "two": (
        {"eth0": STATIC, "eth1": {"dhcp4": True, "match": {"macaddress": "52:54:00:aa:00:02"}}},
        ["52:54:00:aa:00:01 198.18.17.100/24 - -", "52:54:00:aa:00:02 - - -"],
    ),
    "no mac": ({"eth0": {"addresses": ["10.0.0.1/8", "10.0.0.2/8"]}}, ["- 10.0.0.1/8,10.0.0.2/8 - -"]),
}


def read(text: str) -> list[str]:
    shell = ["busybox", "awk"] if shutil.which("busybox") else ["awk"]
    done = subprocess.run([*shell, "-f", str(READER)], input=text, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("style", ["block", "flow", "json"])
def test_network_config(case: str, style: str) -> None:
    cards, wanted = CASES[case]
    config = {"version": 2, "ethernets": cards}
    if style == "json":
        text = json.dumps(config)
    else:
        text = yaml.safe_dump(config, default_flow_style=style == "flow", sort_keys=False)
    assert read(text) == wanted
