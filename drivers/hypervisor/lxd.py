"""LXD: containers of one host, over its API's socket. Facts of LXD 5.0.2 were seen on Debian 12."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from core.errors import Busy, Conflict, HostFault, Unreachable, Unsupported
from core.ids import from_host
from core.settings import DriverSettings
from core.states import InstanceKind, PowerState
from core.units import parse_bytes
from drivers.carrier import Carrier
from drivers.hypervisor import lxd_config, lxd_passing, lxd_prepare
from drivers.hypervisor.base import Capabilities, Capacity, Hypervisor, InstanceSpec, ObservedInstance
from drivers.hypervisor.lxd_adopt import LxdAdopts
from drivers.hypervisor.lxd_api import LxdApi
from drivers.hypervisor.lxd_carrier import LxdCarrier
from drivers.hypervisor.lxd_copies import LxdCopies
from drivers.hypervisor.lxd_core import OFF, SOCKETS, subject_of
from drivers.hypervisor.lxd_images import LxdImages
from drivers.hypervisor.lxd_running import ON, LxdRunning
from drivers.hypervisor.lxd_snapshots import LxdSnapshots
from drivers.hypervisor.lxd_sweep import LxdSweeps
from drivers.hypervisor.powers import Carries, Reconfigures
from drivers.transport.base import Transport


class LxdHypervisor(
    LxdRunning, LxdSnapshots, LxdCopies, LxdAdopts, LxdImages, LxdSweeps, Reconfigures, Carries, Hypervisor
):
    """Containers on one host. The pool "default" gives no quota where its driver is dir."""

    def __init__(self, transport: Transport, api: LxdApi, socket: str) -> None:
        super().__init__(transport, api, socket)
        self._socket = socket
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
        """Return what LXD says of itself. What needs CRIU is left out: memory in snapshots or files, live migration."""
        about = (await self._api.get())["environment"]
        return Capabilities(
            driver="lxd", kinds=(InstanceKind.CONTAINER,), version=about["server_version"],
            architecture=about["kernel_architecture"], exec=True, console_log=True, suspend=True, reboot=True,
            reconfigure=True, resize_live=True, snapshot=True, console=True, backup=True, adopt=True, carry=True,
            save_image=True, grants=("pinning", "numa"),
        )  # fmt: skip

    async def capacity(self) -> Capacity:
        """Return the host's CPUs and memory."""
        found = await self._api.get("resources")
        memory = found["memory"]
        return Capacity(found["cpu"]["total"], memory["total"] // 2**20, memory["used"] // 2**20)

    # what there is

    async def instances(self) -> list[ObservedInstance]:
        """Return all instances with their usage, in one request; not the copies that verbs make for a while."""
        found = await self._api.get("instances", recursion=2)
        return [lxd_config.observed(one) for one in found if not lxd_passing.is_passing(one["name"])]

    async def observe(self, name: str) -> ObservedInstance:
        found = await self._api.find("instances", name, subject=subject_of(name), recursion=1)
        if found is None:
            return ObservedInstance(name, PowerState.ABSENT, InstanceKind.CONTAINER, None)
        return lxd_config.observed(found)

    # changes

    async def define(self, spec: InstanceSpec) -> bool:
        """Make the container from its image, or bring its configuration to spec. Raise NotFound (image), Conflict."""
        return await self._persist(spec.name, await self._defining(spec))

    async def _defining(self, spec: InstanceSpec) -> Callable[[], Awaitable[bool]]:
        if spec.kind is not InstanceKind.CONTAINER:
            raise Unsupported(f"{self._host} runs containers, not a {spec.kind}", f"instance/{spec.id}")
        wanted = lxd_config.container_config(spec, await self._managed_bridges(spec))

        async def attempt() -> bool:
            found = await self._find(spec.name)
            return await (self._create(spec, wanted) if found is None else self._update(spec, found, wanted))

        return attempt

    async def _create(self, spec: InstanceSpec, wanted: dict[str, Any]) -> bool:
        await self._ensure_disks(spec)
        subject = f"instance/{spec.id}"
        await self._api.change("post", "instances", json=wanted, subject=subject, doing=f"create {spec.name}")
        return True

    async def _update(self, spec: InstanceSpec, found: dict[str, Any], wanted: dict[str, Any]) -> bool:
        subject = f"instance/{spec.id}"
        if lxd_config.our_id(found) != spec.id:
            message = f"{self._host} has a container {spec.name} that is not ours"
            raise Conflict(message, subject, {}, "rename or delete it by hand")
        if await self._settle(spec.name):  # it was in the making still, for a worker that has died since
            raise Busy(f"{spec.name} on {self._host} was being changed", subject)
        if lxd_config.half_made(found):
            await self._change(spec.name, "delete", doing="delete")
            return await self._create(spec, wanted)
        changed = await self._ensure_disks(spec)
        body = lxd_config.changed_config(found, wanted)
        if body is None:
            return changed
        await self._change(spec.name, "put", json=body, doing="configure")
        return True

    async def _ensure_disks(self, spec: InstanceSpec) -> bool:
        """Make further disks, or let them grow."""
        subject, changed = f"instance/{spec.id}", False
        for pool, body in lxd_config.custom_volumes(spec):
            path, name = ("storage-pools", pool, "volumes", "custom"), body["name"]
            found = await self._api.find(*path, name, subject=subject)
            if found is None:
                await self._api.change("post", *path, json=body, subject=subject, doing=f"make disk {name}")
            elif parse_bytes(found["config"].get("size") or "0") < parse_bytes(body["config"]["size"]):
                size = {"config": {"size": body["config"]["size"]}}
                await self._api.change("patch", *path, name, json=size, subject=subject, doing=f"grow disk {name}")
            else:
                continue
            changed = True
        return changed

    async def reconfigure(self, spec: InstanceSpec) -> bool:
        """Bring what runs to spec; LXD applies all of it at once. Raise Conflict (absent, off), Unsupported (pool)."""
        define = await self._defining(spec)

        async def attempt() -> bool:
            await self._power(spec.name, ON)
            pool = lxd_passing.root_pool(await self._get(spec.name))
            if any(disk.name == "root" and disk.source != pool for disk in spec.disks):
                raise Unsupported(f"the root disk of {spec.name} stays in pool {pool}", f"instance/{spec.id}")
            return await define()

        return await self._persist(spec.name, attempt)

    async def undefine(self, name: str) -> bool:
        """Delete a stopped container with all that belongs to it; absent is fine. Raise Conflict (it runs, foreign)."""

        async def attempt() -> str | None:
            found = await self._find(name)
            if found is None:
                return None
            if lxd_config.observed(found).power not in OFF:
                power = lxd_config.observed(found).power
                raise Conflict(f"{name} on {self._host} is {power}", subject_of(name), {}, "stop it first")
            instance_id = self._id(found)
            await self._change(name, "delete", doing="delete")
            return instance_id

        deleted = await self._persist(name, attempt)
        instance_id = deleted or from_host(name)
        if instance_id is None:  # an adopted one that has gone already
            return False
        volumes, left = await self._delete_volumes(name, instance_id), await self.clear_passing(instance_id)
        return deleted is not None or volumes or left

    async def _delete_volumes(self, name: str, instance_id: str) -> bool:
        found = lxd_config.volumes_of(name, await self._api.get("storage-pools", recursion=1))
        if from_host(name) is None:  # a name like that may begin others' names, too
            found = [(pool, volume) for pool, volume in found if await self._volume_id(pool, volume) == instance_id]
        for pool, volume in found:
            await self._delete_volume(pool, volume, name)
        return bool(found)

    async def _volume_id(self, pool: str, volume: str) -> str | None:
        found = await self._api.find("storage-pools", pool, "volumes", "custom", volume)
        return found["config"].get(lxd_config.ID_KEY) if found else None

    async def _delete_volume(self, pool: str, volume: str, name: str) -> None:
        await self._api.change(
            "delete", "storage-pools", pool, "volumes", "custom", volume, subject=subject_of(name),
            doing=f"delete disk {volume}",
        )  # fmt: skip

    async def delete_disk(self, name: str, disk: str) -> bool:
        """Delete a further disk that the container has no longer; absent is fine. Raise Conflict (it has it)."""
        volume = lxd_config.volume_name(name, disk)
        pools = await self._api.get("storage-pools", recursion=1)
        found = [pool for pool, one in lxd_config.volumes_of(name, pools) if one == volume]
        for pool in found:
            await self._delete_volume(pool, volume, name)
        return bool(found)

    def carrier(self) -> Carrier:
        """Return what moves containers that are off to another LXD host."""
        return LxdCarrier(self._transport, self._api, self._socket)

    async def _managed_bridges(self, spec: InstanceSpec) -> frozenset[str]:
        """Return which bridges LXD made; asked once, and again when a spec names one that was not known."""
        if not {nic.bridge for nic in spec.nics} <= self._managed:
            networks = await self._api.get("networks", recursion=1)
            self._managed = frozenset(network["name"] for network in networks if network["managed"])
        return self._managed

    async def close(self) -> None:
        """Take no further calls."""
        self._api.close()


async def connect(transport: Transport, settings: DriverSettings) -> LxdHypervisor:
    """Find LXD's socket on a host and reach it; nothing is asked of LXD yet. Raise Unreachable (it does not run).

    A user who may not use the socket is told so by the first call: enrollment lets him join the group in between.
    """
    name = transport.endpoint.name
    may_write = ["(", "-writable", "-printf", "yes\n", "-o", "-printf", "no\n", ")"]
    look = await transport.run(["find", *SOCKETS, "-maxdepth", "0", "-printf", "%p ", *may_write], check=False)
    found = dict(line.split(" ") for line in look.stdout.splitlines())
    socket = next((path for path in SOCKETS if path in found), "")
    if not socket:
        raise Unreachable(  # a host that has just been booted answers before its daemon does
            f"LXD does not run on {name}: none of its sockets is there", f"host/{name}", {"sockets": list(SOCKETS)},
            "start it (systemctl start lxd, snap start lxd), or install it",
        )  # fmt: skip
    api = LxdApi(await transport.forward(socket), name, settings, lambda: transport.cut(socket))
    if found[socket] == "no":
        user = transport.endpoint.user
        api.problem = HostFault(
            f"{user} may not use LXD's socket on {name}", f"host/{name}", {"socket": socket, "user": user},
            f"usermod -aG lxd {user}",
        )  # fmt: skip
    return LxdHypervisor(transport, api, socket)
