"""OpenStack Ironic, alone, by openstacksdk: it keeps machines as nodes and does to them what is asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from openstack import connection, exceptions

from core.errors import HostFault, NotFound
from core.settings import DriverSettings
from drivers.baremetal.base import BmcEndpoint
from drivers.baremetal.calls import Calls
from drivers.baremetal.openstack_errors import log_in, translator

T = TypeVar("T")
_LOOK_EVERY_S = 0.5
_FIX = "see that its BMC answers and that user and password are right"
_FAILED = ("error", "failed")  # how the names of provision states end that lead nowhere


@dataclass(frozen=True)
class NodeSpec:
    """A machine to be kept. driver: redfish, ipmi, fake-hardware. driver_info holds its BMC's address and password.

    macs: of the NICs that boot, by which a ramdisk's post is told from others.
    """

    name: str
    driver: str
    driver_info: Mapping[str, str] = field(default_factory=dict, repr=False)
    macs: Sequence[str] = ()
    inspect_interface: str = "no-inspect"  # agent: Ironic inspects; no-inspect: Inspector does


@dataclass(frozen=True)
class Node:
    """What Ironic says of one. power: "power on", "power off", or None; the targets say what is under way."""

    id: str
    name: str
    provision: str
    provision_target: str | None
    power: str | None
    power_target: str | None
    last_error: str
    maintenance: bool


class Ironic:
    """One service. Nodes by name or id. Nothing is sent before the first verb."""

    def __init__(self, endpoint: BmcEndpoint, settings: DriverSettings) -> None:
        self._endpoint, self._settings = endpoint, settings
        self._client: Any = None
        what = f"Ironic at {endpoint.address}"
        limit_s = settings.connect_timeout_s + settings.command_timeout_s
        self._calls = Calls(what, "", limit_s, translator(what, ""), threads=settings.threads_per_host)

    async def enroll(self, spec: NodeSpec, *, timeout_s: float = 120.0) -> bool:
        """Ensure that a machine is kept, with its ports, and manageable: its BMC answers and accepts the password.

        Raise HostFault (the BMC does not), Conflict (another node has one of its MACs).
        """
        made = await self.call(f"keeping {spec.name}", lambda client: _keep(client, spec))
        moved = await self.provision(spec.name, "manage", "manageable", timeout_s=timeout_s, unless=_MANAGED)
        return made or moved

    async def node(self, name: str) -> Node:
        """Return a node as it is. Raise NotFound."""
        found = await self.call(f"reading {name}", lambda client: client.get_node(name))
        return Node(
            found.id, found.name, found.provision_state, found.target_provision_state, found.power_state,
            found.target_power_state, found.last_error or "", bool(found.is_maintenance),
        )  # fmt: skip

    async def provision(
        self, name: str, verb: str, state: str, *, timeout_s: float, unless: Sequence[str] = ()
    ) -> bool:
        """Move a node by a verb of Ironic's and wait for a state. unless: states from which nothing need be done.

        Raise HostFault (it failed, or is not there after timeout_s), Conflict (not possible from its state).
        """
        if (await self.node(name)).provision in (state, *unless):
            return False
        await self.call(f"{verb} of {name}", lambda client: client.set_node_provision_state(name, verb))
        await self.reached(name, state, timeout_s=timeout_s)
        return True

    async def reached(self, name: str, state: str, *, timeout_s: float, fix: str = _FIX) -> Node:
        """Wait for a provision state. Raise HostFault."""
        end = time.monotonic() + timeout_s
        while True:
            found = await self.node(name)
            if found.provision == state and found.provision_target is None:
                return found
            stopped = found.provision_target is None and found.last_error
            if stopped or found.provision.endswith(_FAILED) or time.monotonic() > end:
                why = found.last_error or f"it did not get there within {timeout_s:g} s"
                raise HostFault(
                    f"{name} is {found.provision}, not {state}: {why}", f"host/{name}",
                    {"wanted": state, "seen": found.provision, "last_error": found.last_error},
                    fix,
                )  # fmt: skip
            await asyncio.sleep(_LOOK_EVERY_S)

    async def forget(self, name: str) -> bool:
        """Ensure that a node is kept no more; its machine is left as it is."""
        try:
            await self.call(f"forgetting {name}", lambda client: client.delete_node(name, ignore_missing=False))
        except NotFound:
            return False
        return True

    async def call(self, doing: str, work: Callable[[Any], T]) -> T:
        """Do some work with openstacksdk's proxy of Ironic."""
        return await self._calls(doing, lambda: work(self._logged_in()))

    async def close(self) -> None:
        """Let the threads go."""
        self._calls.close()

    def _logged_in(self) -> Any:
        if self._client is None:
            self._client = connection.Connection(
                session=log_in(self._endpoint, self._settings), baremetal_endpoint_override=self._endpoint.address,
                baremetal_status_code_retries=0,  # its own sleep in the thread, also over what stays wrong; tasks retry
            ).baremetal
        return self._client


_MANAGED = ("available", "active", "inspecting", "inspect wait", "inspect failed")


def _keep(client: Any, spec: NodeSpec) -> bool:
    """Ensure node and ports; a password cannot be compared, for Ironic does not give it back, so it is written."""
    want = {"driver": spec.driver, "inspect_interface": spec.inspect_interface, "driver_info": dict(spec.driver_info)}
    try:
        node, made = client.get_node(spec.name), False
    except exceptions.NotFoundException:
        node, made = client.create_node(name=spec.name, **want), True
    if not made and _differs(node, spec):
        client.update_node(node, **want)
        made = True
    known = {port.address for port in client.ports(node=node.id)}
    missing = [mac.lower() for mac in spec.macs if mac.lower() not in known]
    for mac in missing:
        client.create_port(node_id=node.id, address=mac)
    return made or bool(missing)


def _differs(node: Any, spec: NodeSpec) -> bool:
    shown = {key: value for key, value in spec.driver_info.items() if not key.endswith("_password")}
    return (
        (node.driver, node.inspect_interface) != (spec.driver, spec.inspect_interface)
        or any(node.driver_info.get(key) != value for key, value in shown.items())
        or len(shown) != len(spec.driver_info)
    )
