"""LXD: containers that were there before us become ours by a mark, and keep their names."""

from __future__ import annotations

from core.errors import Conflict
from drivers.hypervisor import lxd_foreign
from drivers.hypervisor.lxd_config import ADOPTED_KEY, ID_KEY, our_id
from drivers.hypervisor.lxd_core import LxdCore, subject_of
from drivers.hypervisor.powers import Adopts, Found


class LxdAdopts(LxdCore, Adopts):
    """Part of LxdHypervisor."""

    async def describe(self, name: str) -> Found:
        """Describe a container with what its profiles give it. Raise NotFound."""
        found = await self._get(name)
        return lxd_foreign.describe(found, await self._api.get("networks", recursion=1))

    async def adopt(self, name: str, instance_id: str) -> bool:
        """Mark a container as ours. Raise NotFound, Conflict (it is another one's)."""
        found = await self._get(name)
        mine = our_id(found)
        if mine == instance_id:
            return False
        if mine is not None:
            message = f"{name} on {self._host} is instance {mine} already"
            raise Conflict(message, subject_of(name), {"instance": mine}, "disown it first")
        await self._configure(found, {**found["config"], ID_KEY: instance_id, ADOPTED_KEY: name})
        return True

    async def disown(self, name: str) -> bool:
        """Take the mark of an adopted one away. Raise NotFound, Conflict (we have made it)."""
        found = await self._get(name)
        if ADOPTED_KEY not in found["config"]:
            if our_id(found) is not None:
                raise Conflict(f"{name} on {self._host} was not adopted, we have made it", subject_of(name))
            return False
        marks = (ID_KEY, ADOPTED_KEY)
        await self._configure(found, {key: value for key, value in found["config"].items() if key not in marks})
        return True
