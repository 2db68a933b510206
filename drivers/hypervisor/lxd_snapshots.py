"""LXD: snapshots of containers. Memory is never in them: that needs CRIU, which does not work with today's kernels."""

from __future__ import annotations

from typing import Any

from core.errors import NotFound, Unsupported
from core.states import PowerState
from drivers.hypervisor import lxd_config, lxd_passing
from drivers.hypervisor.lxd_core import COPY_S, LxdCore, subject_of
from drivers.hypervisor.lxd_passing import SNAPSHOT_PART
from drivers.hypervisor.powers import Snapshots, SnapshotSeen


class LxdSnapshots(LxdCore, Snapshots):
    """Part of LxdHypervisor. LXD freezes what runs while it takes a snapshot, where its pool needs that."""

    async def snapshots(self, name: str) -> list[SnapshotSeen]:
        """Return all, the oldest first. Raise NotFound."""
        found = await self._api.get("instances", name, "snapshots", subject=subject_of(name), recursion=1)
        return lxd_passing.snapshots_seen(found)

    async def snapshot(self, name: str, snapshot: str, *, memory: bool = False) -> bool:
        """Snapshot the root disk, also of what runs. Raise Unsupported (memory; further disks), NotFound.

        It gets its name when it is whole: LXD lists one in the making, and one that it was killed at.
        """

        async def attempt() -> bool:
            await self._settle(name)
            if snapshot in await self._names(name):
                return False
            self._refuse(await self._get(name), memory)
            await self.clear_part(name)
            doing = f"make snapshot {snapshot} of"
            part = {"name": SNAPSHOT_PART, "stateful": False}
            await self._change(name, "post", "snapshots", json=part, doing=doing, timeout_s=COPY_S)
            await self._change(name, "post", "snapshots", SNAPSHOT_PART, json={"name": snapshot}, doing=doing)
            return True

        return await self._persist(name, attempt)

    def _refuse(self, found: dict[str, Any], memory: bool) -> None:
        name = found["name"]
        if memory and lxd_config.observed(found).power in (PowerState.RUNNING, PowerState.PAUSED):
            raise Unsupported(
                f"LXD on {self._host} cannot save the memory of {name}", subject_of(name), {},
                "take a snapshot without memory, or stop it first",
            )  # fmt: skip
        if further := lxd_passing.further_disks(found):
            raise Unsupported(
                f"LXD's snapshot of {name} would leave out its further disks: {', '.join(further)}",
                subject_of(name), {"disks": further}, "take them away, or make a backup inside",
            )  # fmt: skip

    async def revert(self, name: str, snapshot: str) -> bool:
        """Go back to a snapshot's disk; size, devices and names stay what they are now. What runs starts anew."""

        async def attempt() -> bool:
            await self._settle(name)
            before = await self._get(name)
            if snapshot not in await self._names(name):
                raise NotFound(f"{name} on {self._host} has no snapshot {snapshot}", subject_of(name))
            doing = f"revert to snapshot {snapshot}:"
            await self._change(name, "put", json={"restore": snapshot}, doing=doing, timeout_s=COPY_S)
            after = await self._get(name)
            # LXD brings back limits and NICs of that time, too, among them addresses that others may have by now.
            await self._configure(after, lxd_passing.kept_config(before, after), before["devices"])
            return True

        return await self._persist(name, attempt)

    async def drop_snapshot(self, name: str, snapshot: str) -> bool:
        """Delete one; absent is fine, also with its instance."""

        async def attempt() -> bool:
            await self._settle(name)
            if await self._find(name) is None or snapshot not in await self._names(name):
                return False
            await self._change(name, "delete", "snapshots", snapshot, doing=f"delete snapshot {snapshot} of")
            return True

        return await self._persist(name, attempt)

    async def _names(self, name: str) -> list[str]:
        return [one.name for one in await self.snapshots(name)]
