"""Constraints, as a table: each says on which hosts, or how often there, a shape fits; and for one host why not.

The order is that in which they are told: the first one that fails is the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from control.placement import affinity
from control.placement import eligibility as on
from control.placement import resources as of
from control.placement.eligibility import say
from control.placement.model import Ints, Mask, Shape, View
from control.placement.resources import Room
from control.placement.work import CPU, MEASURED, MEMORY, Need, Work

Test = Callable[[View, Work, Shape], Mask | None]  # on which hosts it may be; None: on all
Rows = Callable[[View, Shape], list[Need]]  # what one copy takes of what is left
Left = Callable[[View, Work, Shape], Ints]
Reason = Callable[[View, Work, Shape, int], dict[str, Any]]  # why not at all on host h: text and numbers


@dataclass(frozen=True)
class Filter:
    """One constraint: a test of what placing changes nothing about, what one copy needs, or a room of another kind.

    left: how much of what it counts a host has, to tell the nearest ones of those that it shuts; static: instances that
    end do not change it, so it may mean that nothing ever fits.
    """

    name: str
    reason: Reason
    test: Test | None = None
    needs: Rows | None = None
    room: Room | None = None
    left: Left | None = None
    static: bool = False


def _unknown_device(view: View, shape: Shape) -> bool:
    return any(name not in view.pci for name, _ in shape.pci)


def _unknown_pages(view: View, shape: Shape) -> bool:
    return shape.hugepage_kib > 0 and shape.hugepage_kib not in view.hugepages


# Tests come first: what they say of a kind of shapes is worked out once (look.eligible).
FILTERS: tuple[Filter, ...] = (
    Filter("state", lambda v, w, s, h: say(f"is {v.states[h]}", state=v.states[h]), on.state),
    Filter("kind", lambda v, w, s, h: say(f"runs {'s and '.join(v.kinds[h]) or 'no instance'}s"), on.kind, static=True),
    Filter(
        "cluster", lambda v, w, s, h: say(f"is in cluster {v.clusters[h]}, not {s.cluster}"), on.cluster, static=True
    ),
    Filter("host", lambda v, w, s, h: say(f"is not {s.host}"), on.named, static=True),
    Filter("labels", on.missing_labels, on.labelled, static=True),
    Filter("avoid", lambda v, w, s, h: say("was tried before and failed"), on.avoid, static=True),
    Filter("move", lambda v, w, s, h: say("is where it is now"), on.leaves, static=True),
    Filter("driver", lambda v, w, s, h: say(f"is a {v.drivers[h]} host, not {s.driver}"), on.driver, static=True),
    Filter("arch", on.no_arch, on.arch, static=True),
    Filter("kernel", on.no_kernel, on.kernel, static=True),
    Filter("capabilities", on.incapable, on.capabilities, static=True),
    Filter("requires", lambda v, w, s, h: say(f"does not satisfy {s.where}"), on.required, room=on.required_now),
    Filter("maintenance", on.in_window, on.window),
    Filter("datastore", on.no_store, on.datastore),
    Filter("network", on.unreached, on.network),
    Filter("addresses", of.no_address, needs=of.addresses, room=of.fixed_addresses),
    Filter("rules", affinity.reason, room=affinity.room),
    Filter("devices", of.no_device, needs=of.devices, room=of.nowhere(_unknown_device)),
    Filter("cpu", of.no_cpu, needs=of.cpu_need, room=of.cores_room, left=lambda v, w, s: w.left[CPU]),
    Filter("memory", of.no_memory, needs=of.memory_need, left=lambda v, w, s: w.left[MEMORY]),
    Filter(
        "measured-memory", of.too_full, needs=of.measured_need,
        left=lambda v, w, s: w.left[MEASURED],
    ),
    Filter("pinning", of.no_pins, needs=of.pinned, room=of.nowhere(lambda v, s: s.pinned and v.pins is None)),
    Filter("hugepages", of.no_pages, needs=of.pages, room=of.nowhere(_unknown_pages)),
    Filter("numa", of.no_cell, room=of.cells_room),
    Filter("promised", of.not_free_long, room=of.promised),
    Filter("disk", of.no_disk, room=of.disk_room, left=of.disk_left),
)  # fmt: skip


_NEEDS = [constraint.needs for constraint in FILTERS if constraint.needs]


def needs_of(view: View, shape: Shape) -> list[Need]:
    """Return what one copy of a shape takes of each row, disks apart: it may be on one of several datastores."""
    return [need for needs in _NEEDS for need in needs(view, shape)]
