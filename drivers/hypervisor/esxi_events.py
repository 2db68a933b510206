"""What vSphere itself tells of its VMs and hosts: its events, from a mark on.

https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.event.EventManager.html
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from pyVmomi import vim

from core.ids import from_host
from drivers.hypervisor.esxi_core import EsxiCore
from drivers.hypervisor.powers import HostEvent, TellsEvents

_PAGE, _MOST = 500, 5000  # in one call, and in one look: what is left comes with the next one
_FILTER = vim.event.EventFilterSpec


class TellsEventsEsxi(EsxiCore, TellsEvents):
    """Events have keys that grow, but begin anew when an ESXi host starts: a mark is time and key."""

    async def events(self, after: str) -> tuple[list[HostEvent], str]:
        """Return what happened to VMs and hosts of this place, oldest first, and the next mark. Raise Unreachable."""
        if not after:
            return [], _mark(await self._transport.call("asking for the time of", _time), 0)
        at, key = _read(after)
        found = await self._transport.call("reading the events of", lambda c: list(self._after(c, at, key)))
        if not found:
            return [], after
        await self.refreshed()
        told = [self._told(one) for one in found if isinstance(one, vim.event.VmEvent | vim.event.HostEvent)]
        return told, _mark(found[-1].createdTime, found[-1].key)

    def _after(self, content: Any, at: datetime, key: int) -> Iterator[Any]:
        root = self.place.hosts[0] if self.place.one_host else self.place.compute
        spec = _FILTER(entity=_FILTER.ByEntity(entity=root, recursion="all"), time=_FILTER.ByTime(beginTime=at))
        collector, count = content.eventManager.CreateCollectorForEvents(spec), 0
        try:
            while count < _MOST and (page := collector.ReadNextEvents(_PAGE)):
                count += len(page)
                yield from (one for one in page if (one.createdTime, one.key) > (at, key))
        finally:
            collector.DestroyCollector()

    def _told(self, event: Any) -> HostEvent:
        name = event.vm.name if event.vm is not None else ""
        seen = self._inventory.seen(name) if self._inventory is not None and name else None
        return HostEvent(
            at=event.createdTime, kind=type(event).__name__.rpartition(".")[2],
            instance_id=(seen.instance_id if seen else None) or from_host(name) or "", by=event.userName or "",
            text=(event.fullFormattedMessage or "").strip(),
        )  # fmt: skip


def _time(content: Any) -> datetime:
    found: datetime = vim.ServiceInstance("ServiceInstance", content.sessionManager._stub).CurrentTime()
    return found


def _mark(at: datetime, key: int) -> str:
    return f"{at.astimezone(UTC).isoformat()} {key}"


def _read(mark: str) -> tuple[datetime, int]:
    at, _, key = mark.partition(" ")
    return datetime.fromisoformat(at), int(key)
