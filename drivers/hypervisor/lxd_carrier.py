"""Moves containers that are off between LXD hosts: one archive each, made and imported by LXD itself.

It is packed once and kept on the host until it is stale or dropped, so that its checksum stands. It is imported under
another name and gets its own when it is whole: under the instance's name there is all of it, or nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from core.errors import Conflict, HostFault, Invalid, NotFound, RackflowError, Unsupported
from core.ids import on_host
from drivers.carrier import Carrier, Parcel
from drivers.hypervisor import lxd_config, lxd_errors, lxd_passing, lxd_scripts
from drivers.hypervisor.lxd_client import LxdClient
from drivers.hypervisor.lxd_copies import LxdCopies, spool
from drivers.hypervisor.lxd_core import COPY_S, OFF, subject_of
from drivers.hypervisor.lxd_passing import passing_name

_FILE = ".tar.gz"
_NAMES = (f"instance{_FILE}", "instance.tar")  # the latter: a backup's, packed all the same


class LxdCarrier(LxdCopies, LxdClient, Carrier):
    """One parcel: all of a container. An adopted one gets its own name again, which stands in its configuration."""

    async def parcels(self, instance_id: str) -> list[Parcel]:
        """Pack it, unless that is done. Raise Conflict (it runs), Unsupported (disks or snapshots that stay behind)."""
        found = await self._mine(instance_id)
        if found is None:
            return []
        self._require_off(found)
        self.refuse_further_disks(found)
        snapshots = await self._movable_snapshots(found["name"])
        key = lxd_passing.archive_key(found, snapshots)
        if not await self._kept(instance_id, key):
            argv = lxd_scripts.argv(lxd_scripts.KEEP, spool(instance_id), key)
            await self.archive(found, argv, snapshots=bool(snapshots))
        kept = await self._kept(instance_id, key)
        return [Parcel(f"instance{_FILE}", size, sha256) for sha256, size in kept.items()]

    async def read(self, instance_id: str, parcel: Parcel) -> AsyncIterator[bytes]:
        """Yield an archive. Raise HostFault (it is gone)."""
        key = next((key for key, one in await self._files(instance_id) if one.sha256 == parcel.sha256), None)
        if key is None:
            raise NotFound(f"{self._host} keeps no archive {parcel.sha256[:12]}", f"instance/{instance_id}")
        path = f"{spool(instance_id)}/{key}-{parcel.sha256}{_FILE}"
        async for chunk in self._transport.read(["cat", path], sudo=True, timeout_s=COPY_S):
            yield chunk

    async def write(self, instance_id: str, parcel: Parcel, content: AsyncIterator[bytes]) -> bool:
        """Take an archive in, verify it, import it. Raise Invalid (checksum, name), Conflict (it is there)."""
        if parcel.name not in _NAMES:
            raise Invalid(f"LXD takes no {parcel.name!r}", f"instance/{instance_id}", {}, f"one of {', '.join(_NAMES)}")
        if await self._is_there(instance_id, parcel):
            await self.clear_passing(instance_id)  # who has brought it may have been killed before that
            return False
        if ("in", parcel.sha256) not in [(key, one.sha256) for key, one in await self._files(instance_id)]:
            await self._receive(instance_id, parcel, content)
        await self._import(instance_id, parcel)
        await self.clear_passing(instance_id)
        return True

    async def _is_there(self, instance_id: str, parcel: Parcel) -> bool:
        found = await self._mine(instance_id)
        if found is None or found["config"].get(lxd_config.PARCEL_KEY) == parcel.sha256:
            return found is not None
        message = f"{self._host} has {found['name']} in another state already"
        raise Conflict(message, f"instance/{instance_id}", {}, "delete it there, or take another host")

    async def _receive(self, instance_id: str, parcel: Parcel, content: AsyncIterator[bytes]) -> None:
        argv = lxd_scripts.argv(lxd_scripts.RECEIVE, spool(instance_id), parcel.sha256)
        printed = (await self._transport.write(content, argv, sudo=True, timeout_s=COPY_S)).stdout
        if printed.startswith(lxd_scripts.WRONG):
            raise Invalid(
                f"the archive of {instance_id} came to {self._host} with other content and was thrown away",
                f"instance/{instance_id}", {"wanted": parcel.sha256, "found": printed.split()[-1]}, "carry it again",
            )  # fmt: skip

    async def _import(self, instance_id: str, parcel: Parcel) -> None:
        found = await self._unpacked(instance_id, f"{spool(instance_id)}/in-{parcel.sha256}{_FILE}")
        passing = found["name"]
        marks = {lxd_config.ID_KEY: instance_id, lxd_config.PARCEL_KEY: parcel.sha256}
        await self._configure(found, {**found["config"], **marks})
        name = found["config"].get(lxd_config.ADOPTED_KEY) or on_host(instance_id)
        try:
            await self._change(passing, "post", json={"name": name}, doing=f"name {name} the import")
        except Conflict:  # somebody else's has that name
            await self._delete(passing)
            raise

    async def _unpacked(self, instance_id: str, path: str) -> dict[str, Any]:
        """Let LXD import a file; return the instance. LXD killed meanwhile leaves a disk that blocks its name."""
        seen = ""
        for purpose in lxd_passing.IMPORTS:
            name = passing_name(instance_id, purpose)
            await self._settle(name)
            await self._delete(name)
            done = await self.run_client(["import", "--quiet", path, name], COPY_S)
            found = await self._find(name)
            if done.exit_code == 0 and found is not None:
                return found
            seen = done.stderr.strip() or f"exit code {done.exit_code}"
            if "already exists on target" not in seen:
                break
        raise self._not_imported(instance_id, seen)

    def _not_imported(self, instance_id: str, seen: str) -> RackflowError:
        kind, fix = lxd_errors.by_words(seen) or (HostFault, "see the evidence")
        evidence = {"seen": seen}
        return kind(f"LXD on {self._host} cannot import the archive: {seen}", f"instance/{instance_id}", evidence, fix)

    async def drop(self, instance_id: str) -> bool:
        """Delete the container and all that was kept of it. Raise Conflict (it runs).

        Further disks, which are in no parcel, stay for the one that takes its place: `undefine` deletes them.
        """
        found = await self._mine(instance_id)
        if found is not None:
            self._require_off(found)
            await self._settle(found["name"])
            await self._delete(found["name"])
        return await self.clear_passing(instance_id) or found is not None

    def _require_off(self, found: dict[str, Any]) -> None:
        power = lxd_config.observed(found).power
        if power not in OFF:
            name = found["name"]
            raise Conflict(f"{name} on {self._host} is {power}", subject_of(name), {}, "stop it first")

    async def _movable_snapshots(self, name: str) -> list[dict[str, Any]]:
        await self.clear_part(name)
        found: list[dict[str, Any]]
        found = await self._api.get("instances", name, "snapshots", subject=subject_of(name), recursion=1)
        if bound := lxd_passing.bound_snapshots(found):
            raise Unsupported(
                f"LXD cannot import snapshots with fixed addresses elsewhere: {', '.join(bound)} of {name}",
                subject_of(name), {"snapshots": bound}, "drop these snapshots first",
            )  # fmt: skip
        return found

    async def _mine(self, instance_id: str) -> dict[str, Any] | None:
        """Return an instance by its id, whatever its name."""
        found = await self._find(on_host(instance_id))
        if found is not None and lxd_config.our_id(found) == instance_id:
            return found
        everything = await self._api.get("instances", recursion=1)
        return next((one for one in everything if lxd_config.our_id(one) == instance_id), None)

    async def _files(self, instance_id: str) -> list[tuple[str, Parcel]]:
        """Return what is kept: key and archive."""
        printed = await self._on_host(lxd_scripts.argv(lxd_scripts.LIST, spool(instance_id)))
        found = []
        for line in printed.splitlines():
            file, size = line.split()
            key, sha256 = file.removesuffix(_FILE).split("-")
            found.append((key, Parcel(file, int(size), sha256)))
        return found

    async def _kept(self, instance_id: str, key: str) -> dict[str, int]:
        return {one.sha256: one.size_bytes for known, one in await self._files(instance_id) if known == key}
