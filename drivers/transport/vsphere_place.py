"""Where in a vSphere inventory a host of ours stands: a host, a cluster or a resource pool; and reading properties.

Properties are read by RetrievePropertiesEx, many objects in one call, and never by attribute access of a managed
object (a call each, and one that fails where a property is unset).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim, vmodl

from core.errors import NotFound

Properties = dict[str, Any]
VM_FOLDER = "rackflow"  # of a vCenter's inventory, for the VMs that are ours
_Q = vmodl.query.PropertyCollector


@dataclass(frozen=True)
class Place:
    """Managed objects. hosts: all of the cluster, or the one meant; compute: the cluster that it is in, or itself."""

    datacenter: Any
    compute: Any
    pool: Any
    vm_folder: Any
    hosts: tuple[Any, ...]
    one_host: bool  # instances go to hosts[0], else where the cluster puts them
    is_vcenter: bool


def read(content: Any, objects: Iterable[Any], paths: Sequence[str]) -> list[tuple[Any, Properties]]:
    """Return the properties of objects that are set, in one call for each kind. Those that are gone are left out."""
    by_kind: dict[type, list[Any]] = {}
    for one in objects:
        by_kind.setdefault(type(one), []).append(one)
    if not by_kind:
        return []
    spec = _Q.FilterSpec(
        objectSet=[_Q.ObjectSpec(obj=one, skip=False) for many in by_kind.values() for one in many],
        propSet=[_Q.PropertySpec(type=kind, pathSet=list(paths)) for kind in by_kind],
        reportMissingObjectsInResults=True,
    )  # fmt: skip
    collector, found = content.propertyCollector, []
    answer = collector.RetrievePropertiesEx([spec], _Q.RetrieveOptions())
    while answer is not None:
        found += [(one.obj, {p.name: p.val for p in one.propSet}) for one in answer.objects]
        answer = collector.ContinueRetrievePropertiesEx(answer.token) if answer.token else None
    return found


def read_one(content: Any, one: Any, paths: Sequence[str]) -> Properties:
    """Return the properties of one object that are set; {} if it is gone."""
    return next((values for _, values in read(content, [one], paths)), {})


def all_of(content: Any, root: Any, kinds: Sequence[type], paths: Sequence[str]) -> list[tuple[Any, Properties]]:
    """Return all objects of some kinds below a container, with properties."""
    view = content.viewManager.CreateContainerView(root, list(kinds), True)
    try:
        return read(content, read_one(content, view, ["view"]).get("view", []), paths)
    finally:
        view.DestroyView()


def find(content: Any, path: str, subject: str) -> Place:
    """Return the place at DATACENTER/CLUSTER, …/CLUSTER/HOST or …/CLUSTER/Resources/POOL; "" = of an ESXi host.

    Raise NotFound (with what there is).
    """
    is_vcenter = content.about.apiType == "VirtualCenter"
    datacenter, compute, chosen = _look(content, path)
    if compute is None:
        raise NotFound(
            f"there is no {path!r} in the inventory" if path else "a vCenter has several hosts: say which is meant",
            subject, {"there": _known(content)}, "name one of those, as DATACENTER/CLUSTER or DATACENTER/CLUSTER/HOST",
        )  # fmt: skip
    of_compute = read_one(content, compute, ["host", "resourcePool"])
    one_host = isinstance(chosen, vim.HostSystem)
    return Place(
        datacenter=datacenter, compute=compute, is_vcenter=is_vcenter, one_host=one_host or not is_vcenter,
        pool=chosen if isinstance(chosen, vim.ResourcePool) else of_compute["resourcePool"],
        vm_folder=read_one(content, datacenter, ["vmFolder"])["vmFolder"],
        hosts=(chosen,) if one_host else tuple(of_compute["host"]),
    )  # fmt: skip


def _look(content: Any, path: str) -> tuple[Any, Any, Any]:
    """Return datacenter, compute resource and what the path names; None where there is no such thing."""
    if not path:
        found = all_of(content, content.rootFolder, [vim.ComputeResource, vim.Datacenter], ["name"])
        computes = [one for one, _ in found if isinstance(one, vim.ComputeResource)]
        centres = [one for one, _ in found if isinstance(one, vim.Datacenter)]
        return (centres[0], computes[0], computes[0]) if len(computes) == 1 and len(centres) == 1 else (None,) * 3
    first, _, rest = path.strip("/").partition("/")
    search = content.searchIndex
    datacenter, chosen = search.FindByInventoryPath(first), search.FindByInventoryPath(f"{first}/host/{rest}")
    compute = chosen
    if isinstance(chosen, vim.ResourcePool):
        compute = read_one(content, chosen, ["owner"])["owner"]
    elif isinstance(chosen, vim.HostSystem):
        compute = read_one(content, chosen, ["parent"])["parent"]
    return datacenter, compute if isinstance(compute, vim.ComputeResource) else None, chosen


def _known(content: Any) -> list[str]:
    """Return the names of datacenters, clusters and hosts."""
    found = all_of(content, content.rootFolder, [vim.Datacenter, vim.ComputeResource, vim.HostSystem], ["name"])
    return [f"{type(one).__name__.rpartition('.')[2]} {values['name']}" for one, values in found][:50]
