"""LXD: containers of one host, over its API's socket. Facts of LXD 5.0.2 were seen on Debian 12."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from core.errors import Busy, Conflict, HostFault, Invalid, NotFound, RackflowError, Unsupported
from core.ids import from_host
from core.settings import DriverSettings
from core.states import InstanceKind, PowerState
from drivers.hypervisor import lxd_config, lxd_prepare
from drivers.hypervisor.base import (
    Capabilities,
    Capacity,
    ExecResult,
    Hypervisor,
    ImageOnHost,
    InstanceSpec,
    ObservedInstance,
)
from drivers.hypervisor.lxd_api import CHANGE_S, LxdApi
from drivers.hypervisor.powers import ConsoleLogs, Executes, KeepsImages
from drivers.transport.base import Transport

SOCKETS = (
    "/var/snap/lxd/common/lxd/unix.socket",
    "/var/lib/lxd/unix.socket",  # Debian's package
    "/var/lib/incus/unix.socket",
)
CLIENTS = {"/var/lib/incus/unix.socket": "incus"}  # command line client, else lxc
_ATTEMPTS = 3  # to change what somebody else is changing
_IMPORT_S = 600.0
_IMPORT_FAULTS: dict[int, tuple[type[RackflowError], str]] = {
    127: (HostFault, "install the client: apt-get install lxd-client"),
}
_ACTIONS = {(PowerState.PAUSED, PowerState.RUNNING): "unfreeze"}  # others: start, stop


class LxdHypervisor(Hypervisor, Executes, ConsoleLogs, KeepsImages):
    """Containers on one host. The pool "default" gives no quota where its driver is dir."""

    def __init__(self, transport: Transport, api: LxdApi, socket: str) -> None:
        self._transport = transport
        self._api = api
        self._socket = socket
        self._host = transport.endpoint.name
        self._managed: frozenset[str] = frozenset()  # bridges that LXD made

    # the host

    async def prepare(self, *, bridges: Sequence[tuple[str, str]] = ()) -> list[str]:
        """Ensure pool and bridges; the default profile is left alone. Raise HostFault (other address than asked)."""
        pools = await self._api.get("storage-pools", recursion=1)
        networks = await self._api.get("networks", recursion=1)
        done = []
        for change in lxd_prepare.changes(pools, networks, bridges):
            try:
                await self._api.change("post", change.collection, json=change.body, doing=f"make {change.words}")
                done.append(change.words)
            except Conflict:  # somebody made it meanwhile
                continue
        return done

    async def capabilities(self) -> Capabilities:
        """Return what LXD says of itself."""
        about = (await self._api.get())["environment"]
        return Capabilities(
            driver="lxd", kinds=(InstanceKind.CONTAINER,), version=about["server_version"],
            architecture=about["kernel_architecture"], exec=True, console_log=True,
        )  # fmt: skip

    async def capacity(self) -> Capacity:
        """Return the host's CPUs and memory."""
        found = await self._api.get("resources")
        memory = found["memory"]
        return Capacity(found["cpu"]["total"], memory["total"] // 2**20, memory["used"] // 2**20)

    # what there is

    async def instances(self) -> list[ObservedInstance]:
        """Return all instances with their usage, in one request."""
        return [lxd_config.observed(one) for one in await self._api.get("instances", recursion=2)]

    async def observe(self, name: str) -> ObservedInstance:
        found = await self._api.find("instances", name, subject=_subject(name), recursion=1)
        if found is None:
            return ObservedInstance(name, PowerState.ABSENT, InstanceKind.CONTAINER, None)
        return lxd_config.observed(found)

    # changes

    async def define(self, spec: InstanceSpec) -> bool:
        """Make the container from its image, or bring its configuration to spec. Raise NotFound (image), Conflict."""
        if spec.kind is not InstanceKind.CONTAINER:
            raise Unsupported(f"{self._host} runs containers, not a {spec.kind}", f"instance/{spec.id}")
        wanted = lxd_config.container_config(spec, await self._managed_bridges(spec))

        async def attempt() -> bool:
            found = await self._api.find("instances", spec.name, subject=f"instance/{spec.id}")
            return await (self._create(spec, wanted) if found is None else self._update(spec, found, wanted))

        return await self._persist(spec.name, attempt)

    async def _create(self, spec: InstanceSpec, wanted: dict[str, Any]) -> bool:
        subject = f"instance/{spec.id}"
        for pool, body in lxd_config.custom_volumes(spec):
            path = ("storage-pools", pool, "volumes", "custom")
            if await self._api.find(*path, body["name"], subject=subject) is None:
                await self._api.change("post", *path, json=body, subject=subject, doing=f"make disk {body['name']}")
        await self._api.change("post", "instances", json=wanted, subject=subject, doing=f"create {spec.name}")
        return True

    async def _update(self, spec: InstanceSpec, found: dict[str, Any], wanted: dict[str, Any]) -> bool:
        subject = f"instance/{spec.id}"
        if found["config"].get(lxd_config.ID_KEY) != spec.id:
            message = f"{self._host} has a container {spec.name} that is not ours"
            raise Conflict(message, subject, {}, "rename or delete it by hand")
        if await self._settle(spec.name):  # it was in the making still, for a worker that has died since
            raise Busy(f"{spec.name} on {self._host} was being changed", subject)
        if lxd_config.half_made(found):
            await self._api.change("delete", "instances", spec.name, subject=subject, doing=f"delete {spec.name}")
            return await self._create(spec, wanted)
        body = lxd_config.changed_config(found, wanted)
        if body is None:
            return False
        await self._api.change(
            "put", "instances", spec.name, json=body, subject=subject, doing=f"configure {spec.name}"
        )
        return True

    async def start(self, name: str) -> bool:
        return await self._turn(name, PowerState.RUNNING, CHANGE_S)

    async def stop(self, name: str, *, grace_s: float = 30.0) -> bool:
        if grace_s <= 0:
            return await self._turn(name, PowerState.STOPPED, CHANGE_S, force=True)
        try:
            return await self._turn(name, PowerState.STOPPED, grace_s + 10, timeout=math.ceil(grace_s))
        except HostFault:  # it does not listen
            await self._turn(name, PowerState.STOPPED, CHANGE_S, force=True)
            return True

    async def _turn(self, name: str, wanted: PowerState, timeout_s: float, **options: Any) -> bool:
        """Start or stop. Raise Conflict if it is absent."""

        async def attempt() -> bool:
            found = await self._api.find("instances", name, subject=_subject(name))
            if found is None:
                raise Conflict(f"{self._host} has no container {name}", _subject(name))
            power = lxd_config.observed(found).power
            if power is wanted:
                return False
            action = _ACTIONS.get((power, wanted)) or ("stop" if wanted is PowerState.STOPPED else "start")
            await self._api.change(
                "put", "instances", name, "state", json={"action": action, **options}, subject=_subject(name),
                doing=f"{action} {name}", timeout_s=timeout_s,
            )  # fmt: skip
            return True

        return await self._persist(name, attempt)

    async def undefine(self, name: str) -> bool:
        """Delete a stopped container with all its disks; absent is fine. Raise Conflict (it runs, is not ours)."""

        async def attempt() -> bool:
            found = await self._api.find("instances", name, subject=_subject(name))
            if found is None:
                return False
            self._may_go(found)
            await self._api.change("delete", "instances", name, subject=_subject(name), doing=f"delete {name}")
            return True

        changed = await self._persist(name, attempt)
        return await self._delete_volumes(name) or changed

    def _may_go(self, found: dict[str, Any]) -> None:
        name, seen = found["name"], lxd_config.observed(found)
        if seen.power not in (PowerState.STOPPED, PowerState.CRASHED):
            raise Conflict(f"{name} on {self._host} is {seen.power}", _subject(name), {}, "stop it first")
        if seen.instance_id is None or seen.instance_id != from_host(name):
            raise Conflict(f"{name} on {self._host} is not ours", _subject(name))

    async def _delete_volumes(self, name: str) -> bool:
        found = lxd_config.volumes_of(name, await self._api.get("storage-pools", recursion=1))
        for pool, volume in found:
            await self._api.change(
                "delete", "storage-pools", pool, "volumes", "custom", volume, subject=_subject(name),
                doing=f"delete disk {volume}",
            )  # fmt: skip
        return bool(found)

    async def _persist(self, name: str, attempt: Callable[[], Awaitable[bool]]) -> bool:
        """Look and try again when LXD refused because somebody else was changing the same instance."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return await attempt()
            except (Busy, Conflict, NotFound):
                await self._settle(name)
        return await attempt()

    async def _settle(self, name: str) -> bool:
        """Wait until LXD does nothing to an instance any more, whoever asked for it; say whether it did."""
        running = (await self._api.get("operations", recursion=1)).get("running") or []
        urls = {one["id"]: (one.get("resources") or {}).get("instances") or [] for one in running}
        mine = [number for number, instances in urls.items() if f"/1.0/instances/{name}" in instances]
        for number in mine:
            await self._api.wait(number, subject=_subject(name))
        return bool(mine)

    async def _managed_bridges(self, spec: InstanceSpec) -> frozenset[str]:
        """Return which bridges LXD made; asked once, and again when a spec names one that was not known."""
        if not {nic.bridge for nic in spec.nics} <= self._managed:
            networks = await self._api.get("networks", recursion=1)
            self._managed = frozenset(network["name"] for network in networks if network["managed"])
        return self._managed

    # inside

    async def exec(
        self, name: str, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: bytes = b""
    ) -> ExecResult:
        """Run argv in a container. At the deadline Unreachable is raised, and LXD ends the process."""
        code, out, err = await self._api.execute(name, list(argv), stdin, subject=_subject(name), timeout_s=timeout_s)
        return ExecResult(code, out.decode(errors="replace"), err.decode(errors="replace"))

    async def console_log(self, name: str, *, max_bytes: int = 65536) -> str:
        """Return the end of the console's log; LXD keeps it for the present, or else the last, run."""
        try:
            text = await self._api.get("instances", name, "console", subject=_subject(name))
        except NotFound:
            if (await self.observe(name)).power is PowerState.ABSENT:
                raise
            return ""  # nothing was written yet
        return str(text).encode()[-max_bytes:].decode(errors="ignore") if max_bytes > 0 else ""

    # images

    async def import_image(self, path: str, fingerprint: str, *, name: str) -> bool:
        """Import a unified tarball that lies on the host; LXD's fingerprint is its sha256. Raise Invalid."""
        if await self._api.find("images", fingerprint) is not None:
            return False
        # No properties: with them LXD 5.0.2 dies on an image whose metadata has none (nil map, lxd/images.go:715).
        argv = [CLIENTS.get(self._socket, "lxc"), "image", "import", path]
        done = await self._transport.run(argv, timeout_s=_IMPORT_S, check=False, sudo=True)
        if await self._api.find("images", fingerprint) is not None:
            return True
        other = re.search(r"fingerprint: ([0-9a-f]{64})", done.stdout)
        if other:
            await self.delete_image(other[1])
        seen = f"its content is {other[1]}" if other else (done.stderr or done.stdout).strip()
        kind, fix = _IMPORT_FAULTS.get(done.exit_code, (Invalid, "it must be a unified LXD tarball"))
        evidence = {"path": path, "fingerprint": fingerprint, "exit_code": done.exit_code, "seen": seen}
        raise kind(f"LXD on {self._host} cannot import image {name}: {seen}", f"image/{name}", evidence, fix)

    async def images(self) -> list[ImageOnHost]:
        return [lxd_config.image(one) for one in await self._api.get("images", recursion=1)]

    async def delete_image(self, fingerprint: str) -> bool:
        if await self._api.find("images", fingerprint) is None:
            return False
        try:
            await self._api.change("delete", "images", fingerprint, doing=f"delete image {fingerprint[:12]}")
        except NotFound:
            return False
        return True

    async def close(self) -> None:
        """Take no further calls."""
        self._api.close()


def _subject(name: str) -> str:
    return f"instance/{from_host(name) or name}"

async def connect(transport: Transport, settings: DriverSettings) -> LxdHypervisor:
    """Find LXD's socket on a host and reach it; nothing is asked of LXD yet. Raise HostFault (there is none).

    A user who may not use the socket is told so by the first call: enrollment lets him join the group in between.
    """
    name = transport.endpoint.name
    may_write = ["(", "-writable", "-printf", "yes\n", "-o", "-printf", "no\n", ")"]
    look = await transport.run(["find", *SOCKETS, "-maxdepth", "0", "-printf", "%p ", *may_write], check=False)
    found = dict(line.split(" ") for line in look.stdout.splitlines())
    socket = next((path for path in SOCKETS if path in found), "")
    if not socket:
        raise HostFault(
            f"{name} has no LXD: none of its sockets is there", f"host/{name}", {"sockets": list(SOCKETS)},
            "apt-get install lxd, or snap install lxd; then enroll it again",
        )  # fmt: skip
    api = LxdApi(await transport.forward(socket), name, settings, lambda: transport.cut(socket))
    if found[socket] == "no":
        user = transport.endpoint.user
        api.problem = HostFault(
            f"{user} may not use LXD's socket on {name}", f"host/{name}", {"socket": socket, "user": user},
            f"usermod -aG lxd {user}",
        )  # fmt: skip
    return LxdHypervisor(transport, api, socket)
