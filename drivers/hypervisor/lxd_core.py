"""What all parts of the LXD driver share: how an instance is looked for, waited for and changed."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from core.errors import Busy, Conflict, NotFound
from core.ids import from_host
from core.states import PowerState
from drivers.hypervisor import lxd_config
from drivers.hypervisor.lxd_api import CHANGE_S, LxdApi
from drivers.hypervisor.lxd_passing import SNAPSHOT_PART
from drivers.transport.base import Transport

T = TypeVar("T")
SOCKETS = (
    "/var/snap/lxd/common/lxd/unix.socket",
    "/var/lib/lxd/unix.socket",  # Debian's package
    "/var/lib/incus/unix.socket",
)
CLIENTS = {"/var/lib/incus/unix.socket": "incus"}  # command line client, else lxc
COPY_S = 3600.0  # of a whole disk
_ATTEMPTS = 3  # to change what somebody else is changing
OFF = (PowerState.STOPPED, PowerState.CRASHED)


def subject_of(name: str) -> str:
    """Return the subject of errors about an instance, by its name on the host."""
    return f"instance/{from_host(name) or name}"


def concerns(operation: dict[str, Any], name: str) -> bool:
    """Say whether an operation is about an instance, or about what is below it."""
    mine = re.compile(rf"/1\.0/instances/{re.escape(name)}(/|$)")
    return any(map(mine.match, (operation.get("resources") or {}).get("instances") or []))


class LxdCore:
    """One host's LXD."""

    def __init__(self, transport: Transport, api: LxdApi, socket: str) -> None:
        self._transport = transport
        self._api = api
        self._host = transport.endpoint.name
        self._client = CLIENTS.get(socket, "lxc")
        self._folder = socket.rpartition("/")[0]  # where LXD keeps its files

    async def _find(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self._api.find("instances", name, subject=subject_of(name))
        return found

    async def _get(self, name: str) -> dict[str, Any]:
        """Return an instance. Raise NotFound."""
        found = await self._find(name)
        if found is None:
            raise NotFound(f"{self._host} has no container {name}", subject_of(name))
        return found

    def _id(self, found: dict[str, Any]) -> str:
        """Return the id of one of ours. Raise Conflict."""
        instance_id = lxd_config.our_id(found)
        if instance_id is None:
            raise Conflict(f"{found['name']} on {self._host} is not ours", subject_of(found["name"]), {}, "adopt it")
        return instance_id

    async def _persist(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Look and try again when LXD refused because somebody else was changing the same instance."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return await attempt()
            except (Busy, Conflict, NotFound):
                await self._settle(name)
        return await attempt()

    async def _settle(self, name: str) -> bool:
        """Wait until LXD does nothing to an instance any more, whoever asked for it; say whether it did.

        Consoles and commands inside, whose operations are of the class websocket, are left alone.
        """
        return await self._wait_for(lambda one: one["class"] == "task" and concerns(one, name), subject_of(name))

    async def _wait_for(
        self, matches: Callable[[dict[str, Any]], bool], subject: str, timeout_s: float = CHANGE_S
    ) -> bool:
        """Wait for operations of LXD that run now; say whether there were some."""
        running = (await self._api.get("operations", recursion=1)).get("running") or []
        mine = [one["id"] for one in running if matches(one)]
        for number in mine:
            await self._api.wait(number, subject=subject, timeout_s=timeout_s)
        return bool(mine)

    async def _change(
        self, name: str, method: str, *path: str, json: dict[str, Any] | None = None, doing: str,
        timeout_s: float = CHANGE_S,
    ) -> Any:  # fmt: skip
        """Change an instance, or what is below it."""
        return await self._api.change(
            method, "instances", name, *path, json=json, subject=subject_of(name), doing=f"{doing} {name}",
            timeout_s=timeout_s,
        )  # fmt: skip

    async def _configure(self, found: dict[str, Any], config: dict[str, str], devices: Any = None) -> None:
        """Give an instance config (and devices) as a whole."""
        body = lxd_config.whole_config(found, config, found["devices"] if devices is None else devices)
        await self._change(found["name"], "put", json=body, doing="configure")

    async def _delete(self, name: str) -> bool:
        """Delete an instance that is off, with snapshots and backups; absent is fine."""
        if await self._find(name) is None:
            return False
        await self._change(name, "delete", doing="delete")
        return True

    async def clear_part(self, name: str) -> None:
        """Take away a snapshot that is not whole."""
        if await self._api.find("instances", name, "snapshots", SNAPSHOT_PART, subject=subject_of(name)) is not None:
            await self._change(name, "delete", "snapshots", SNAPSHOT_PART, doing="clear a snapshot of")
