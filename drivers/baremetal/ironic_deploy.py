"""Ironic writes a disk: the node is freed, told of an image, and moved to active; its agent does the rest.

https://docs.openstack.org/ironic/latest/user/deploy.html; where it fails the node is manageable again, and off.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import time
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from core.errors import Conflict, HostFault, RackflowError
from drivers.baremetal.facets import Deployment
from drivers.baremetal.inventory import Disk
from drivers.baremetal.ironic import Ironic

FREE, WRITTEN, OURS = "available", "active", "manageable"
# The verbs that lead from a state to FREE, step by step; from states that are not here a node goes on by itself.
_TOWARDS_FREE = {
    OURS: "provide", "inspect failed": "manage", "clean failed": "manage",
    "active": "deleted", "deploy failed": "deleted", "wait call-back": "deleted", "error": "deleted",
}  # fmt: skip
_FORMATS = {".raw": "raw", ".qcow2": "qcow2"}  # of others the agent finds out itself
_LOOK_EVERY_S = 0.5
_WITHDRAW_S = 300.0
_FIX = "see that the agent can reach the image, and what the machine's console and Ironic's log say"


async def deploy(ironic: Ironic, name: str, want: Deployment, timeout_s: float) -> None:
    """Write a node's disk. What an earlier try left under way is taken back first. Raise HostFault."""
    end = time.monotonic() + timeout_s
    drive = base64.b64encode(gzip.compress(want.config_drive)).decode()
    try:
        await _freed(ironic, name, end)
        await ironic.call(f"telling {name} its image", lambda client: _describe(client, name, want))
        await ironic.call(
            f"deploying {name}",
            lambda client: client.set_node_provision_state(name, WRITTEN, config_drive=drive),
        )
        await ironic.reached(name, WRITTEN, timeout_s=end - time.monotonic(), fix=_FIX)
    except BaseException:
        await asyncio.shield(_withdraw(ironic, name))
        raise


def _describe(client: Any, name: str, want: Deployment) -> None:
    image = {"image_source": want.image, "image_os_hash_algo": "sha256", "image_os_hash_value": want.sha256}
    if known := _FORMATS.get(PurePosixPath(want.image).suffix):
        image["image_disk_format"] = known
    node = client.get_node(name)
    client.update_node(node, instance_info=image, properties={**node.properties, "root_device": root_device(want.disk)})


def root_device(disk: Disk) -> dict[str, str]:
    """Return the hint by which the agent finds a disk: what is its own before what may change."""
    found = {"wwn": disk.wwn, "serial": disk.serial, "name": disk.name}
    return dict([next((key, value) for key, value in found.items() if value)])


async def _freed(ironic: Ironic, name: str, end: float) -> None:
    """Ensure that a node is available. Raise HostFault."""
    while True:
        found = await ironic.node(name)
        if found.provision == FREE and found.provision_target is None:
            return
        if time.monotonic() > end or found.maintenance:
            raise HostFault(
                f"{name} is {found.provision} and does not become {FREE}: {found.last_error}", f"host/{name}",
                {"seen": found.provision, "maintenance": found.maintenance, "last_error": found.last_error},
                "see what Ironic says of the node",
            )  # fmt: skip
        if verb := _TOWARDS_FREE.get(found.provision):
            with suppress(Conflict):  # Ironic looks at its power just now
                await ironic.call(f"{verb} of {name}", partial(_move, name, verb))
        await asyncio.sleep(_LOOK_EVERY_S)


def _move(name: str, verb: str, client: Any) -> None:
    client.set_node_provision_state(name, verb)


async def take_back(ironic: Ironic, name: str, timeout_s: float) -> bool:
    """Ensure that a node is manageable, whatever became of its deployment. Raise HostFault."""
    if (await ironic.node(name)).provision == OURS:
        return False
    await _freed(ironic, name, time.monotonic() + timeout_s)
    await ironic.provision(name, "manage", OURS, timeout_s=timeout_s)
    return True


async def _withdraw(ironic: Ironic, name: str) -> None:
    with suppress(RackflowError):
        await take_back(ironic, name, _WITHDRAW_S)
