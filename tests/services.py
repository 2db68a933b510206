"""Real Ironic and Inspector for tests: nodes of their own, and inventories as a ramdisk posts them."""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.settings import DriverSettings
from drivers.baremetal.base import BmcEndpoint
from drivers.baremetal.ironic import Ironic, NodeSpec
from lab.baremetal.services import USER, Services

SETTINGS = DriverSettings(connect_timeout_s=10, command_timeout_s=30)
_SAMPLE = Path(__file__).parent / "unit" / "drivers" / "golden" / "inventory" / "ipa-busybox.in.json"
_COUNT = itertools.count(1)


def endpoint(services: Services, name: str, **changes: Any) -> BmcEndpoint:
    """Return where a service is."""
    known = {"address": services.url(name), "user": USER, "password": services.password}
    return BmcEndpoint(name=name, **(known | changes))


def mac(number: int) -> str:
    """Return a MAC of this test run's own."""
    return f"52:54:00:aa:{number // 256:02x}:{number % 256:02x}"


async def fake_node(ironic: Ironic, **changes: Any) -> tuple[str, str]:
    """Make a node of fake hardware, manageable; return its name and its MAC."""
    number = next(_COUNT)
    spec: dict[str, Any] = {"name": f"node-{number}", "driver": "fake-hardware", "macs": [mac(number)]}
    await ironic.enroll(NodeSpec(**(spec | changes)))
    return f"node-{number}", mac(number)


def canned(address: str, *, error: str | None = None) -> dict[str, Any]:
    """Return what a ramdisk posts from a machine with this MAC."""
    found = json.loads(_SAMPLE.read_text().replace("52:54:00:aa:bb:01", address))
    keep = ("inventory", "root_disk", "pci_devices", "configuration")
    return {key: found[key] for key in keep} | {"error": error, "boot_interface": f"01-{address.replace(':', '-')}"}


async def post(url: str, data: Mapping[str, Any]) -> int:
    """Post an inventory, as a ramdisk does, without credentials; return the HTTP status."""
    request = urllib.request.Request(url, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def send() -> int:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    return await asyncio.to_thread(send)


async def post_until_taken(url: str, data: Mapping[str, Any]) -> None:
    """Post until the service waits for it."""
    for _ in range(120):
        if await post(url, data) < 300:
            return
        await asyncio.sleep(0.25)
    raise AssertionError(f"{url} did not take it")
