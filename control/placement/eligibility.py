"""On which hosts a shape may be, whatever is left there: a mask of each constraint (None: all), and why not host h."""

from __future__ import annotations

from typing import Any

import numpy as np

from control.placement.expressions import holds, parse
from control.placement.model import MANY, At, Ints, Mask, Shape, View
from control.placement.work import Work
from core.states import RESTING, HostState


def say(text: str, **numbers: Any) -> dict[str, Any]:
    """Return a reason: its text and its numbers."""
    return {"reason": text, **numbers}


# what a host is not said to be able to do (drivers.hypervisor.base.Capabilities.grants), in words
_GIVES = {
    "pinning": "give away whole cores", "numa": "bind to one NUMA cell", "hugepages": "give away huge pages",
    "pci": "pass on devices",
}  # fmt: skip
_WAITED_FOR = frozenset({HostState.READY, HostState.UNREACHABLE, "backed-off", *RESTING})


def state(view: View, work: Work, shape: Shape) -> Mask | None:
    good = _WAITED_FOR if work.may_wait else {HostState.READY}
    return view.column("states").where(lambda state: state in good)


def kind(view: View, work: Work, shape: Shape) -> Mask | None:
    return view.column("kinds").where(lambda kinds: shape.kind in kinds)


def cluster(view: View, work: Work, shape: Shape) -> Mask | None:
    return None if shape.cluster is None else view.column("clusters").equal(shape.cluster)


def named(view: View, work: Work, shape: Shape) -> Mask | None:
    return None if shape.host is None else view.column("names").equal(shape.host)


def labelled(view: View, work: Work, shape: Shape) -> Mask | None:
    good: Mask | None = None
    for key, value in shape.labels:
        mask = view.column("labels", key).equal(value)
        good = mask if good is None else good & mask
    return good


def missing_labels(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    missing = dict(sorted(set(shape.labels) - set(view.labels[h].items())))
    return say("lacks " + ", ".join(f"{k}={v}" for k, v in missing.items()), missing=missing)


def avoid(view: View, work: Work, shape: Shape) -> Mask | None:
    return view.column("names").where(lambda name: name not in shape.avoid) if shape.avoid else None


def leaves(view: View, work: Work, shape: Shape) -> Mask | None:
    return view.column("names").where(lambda name: name != shape.leaves) if shape.leaves else None


def driver(view: View, work: Work, shape: Shape) -> Mask | None:
    return view.column("drivers").equal(shape.driver) if shape.driver else None


def arch(view: View, work: Work, shape: Shape) -> Mask | None:
    return view.column("archs").equal(shape.arch) if shape.arch else None


def no_arch(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    have = (view.column("archs").where(bool).any() and view.archs[h]) or "of unknown architecture"
    return say(f"is {have}, not {shape.arch}", need=shape.arch)


def kernel(view: View, work: Work, shape: Shape) -> Mask | None:
    return view.column("kernels").where(lambda have: have is None or shape.kernel in have)


def no_kernel(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    if not shape.kernel:
        return say("boots only images that name a kernel", need="")
    return say(f"has no kernel {shape.kernel}", need=shape.kernel)


def capabilities(view: View, work: Work, shape: Shape) -> Mask | None:
    if not shape.capabilities:
        return None
    return view.column("capabilities").where(lambda have: have is not None and shape.capabilities <= have)


def incapable(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    lacks = sorted(shape.capabilities - (view.capabilities[h] if view.capabilities else frozenset()))
    told = ", ".join(_GIVES.get(name, name) for name in lacks)
    return say(f"is a {view.drivers[h]} host, which cannot {told}", missing=lacks)


def required(view: View, work: Work, shape: Shape) -> Mask | None:
    if not shape.where or parse(shape.where).changing:
        return None
    return holds(shape.where, view, work, shape)


def required_now(view: View, work: Work, shape: Shape, at: At) -> Ints | None:
    if not shape.where or not parse(shape.where).changing:
        return None
    return np.where(holds(shape.where, view, work, shape)[at], MANY, 0)


NOT_KNOWN_S = 3600.0  # how long something is expected to stay of which nothing is known, for maintenance


def window(view: View, work: Work, shape: Shape) -> Mask | None:
    if view.windows_s is None or work.may_wait:
        return None
    return view.windows_s > (shape.lifetime_s or NOT_KNOWN_S)


def in_window(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    begins = 0.0 if view.windows_s is None else float(view.windows_s[h])
    needs = shape.lifetime_s or NOT_KNOWN_S
    return say(f"has a maintenance in {begins:.0f} s, {needs:.0f} s are needed", begins_s=begins, need_s=needs)


def datastore(view: View, work: Work, shape: Shape) -> Mask | None:
    good = np.zeros(len(view), np.bool_)
    for name in view.stores_of(shape):
        good |= view.stores[name].group >= 0
    return good


def no_store(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    return say(f"has no datastore{' ' + shape.datastore if shape.datastore else ''}", datastore=shape.datastore)


def network(view: View, work: Work, shape: Shape) -> Mask | None:
    good = np.ones(len(view), np.bool_)
    for name in shape.networks:
        good &= view.nets[name].reach if name in view.nets else False
    return good


def unreached(view: View, work: Work, shape: Shape, h: int) -> dict[str, Any]:
    missing = [n for n in shape.networks if n not in view.nets or not view.nets[n].reach[h]]
    return say(f"has no bridge of network {', '.join(missing)}", networks=missing)
