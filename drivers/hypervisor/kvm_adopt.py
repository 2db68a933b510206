"""KVM: domains that somebody else made become ours by a mark in their metadata."""

from __future__ import annotations

from drivers.hypervisor import domain_adopt
from drivers.hypervisor.kvm_core import KvmCore
from drivers.hypervisor.powers import Adopts, Found


class AdoptsVm(KvmCore, Adopts):
    """Part of KvmHypervisor."""

    async def describe(self, name: str) -> Found:
        """Describe a domain of the host. Raise NotFound."""
        return await self._call(name, "describing", lambda c: domain_adopt.describe(c, name, self._marks))

    async def adopt(self, name: str, instance_id: str) -> bool:
        """Mark a domain as ours. Raise NotFound, Conflict (another instance's), Unsupported (it has problems)."""
        return await self._call(name, "adopting", lambda c: domain_adopt.adopt(c, name, instance_id, self._marks))

    async def disown(self, name: str) -> bool:
        """Take the mark away again. Raise NotFound, Conflict (rackflow made it)."""
        return await self._call(name, "disowning", lambda c: domain_adopt.disown(c, name, self._marks))
