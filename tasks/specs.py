"""From the record's view of an instance to what the drivers take. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from control.hosts import HostRecord
from control.instances import Deployable, LeaseRecord
from core.states import InstanceKind
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from drivers.network.base import NetworkSpec, NicSpec
from drivers.storage.base import SeedSpec, VolumeSpec
from drivers.storage.seed import seed_texts

POOL = "default"  # of the hypervisors that keep root disks in a pool of their own (LXD)


def volumes(view: Deployable) -> list[VolumeSpec]:
    """Return the writable disks of a VM: root from the image, then the further ones, blank."""
    image = view.require_image()
    root = VolumeSpec(view.id, "root", view.root_mib, image.sha256, image.format)
    return [root, *(VolumeSpec(view.id, disk.name, disk.size_mib) for disk in view.spec.disks)]


def pool_disks(view: Deployable) -> list[DiskAttachment]:
    """Return the disks of a container whose hypervisor makes them itself from its own copy of the image."""
    content = view.image.sha256 if view.image else ""
    root = DiskAttachment("root", "pool", POOL, "raw", view.root_mib, image_fingerprint=content)
    return [root, *(DiskAttachment(d.name, "pool", POOL, "raw", d.size_mib) for d in view.spec.disks)]


def network(lease: LeaseRecord) -> NetworkSpec:
    """Return the network of a lease as the network driver takes it."""
    return NetworkSpec(lease.network, lease.kind, lease.bridge, lease.cidr)


def nic(lease: LeaseRecord) -> NicSpec:
    """Return the NIC of a lease; no address means DHCP."""
    address = f"{lease.address}/{lease.prefix_length}" if lease.address else ""
    return NicSpec(lease.nic_index, lease.mac, address, lease.gateway, tuple(lease.nameservers))


def seed(view: Deployable, nics: Sequence[NicAttachment]) -> SeedSpec:
    """Return the cloud-init seed of a VM."""
    return seed_texts(
        instance_id=view.id, hostname=view.name, ssh_keys=view.spec.ssh_keys, user_data=view.spec.user_data, nics=nics
    )


def _own(host: HostRecord | None, granted: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what of a host is an instance's alone, and which cores it may use where some are others' alone."""
    has, mine = (host.hardware if host else None) or {}, granted or {}
    cell, pinned = mine.get("cell"), tuple(mine.get("cpus", ()))
    cells = has.get("cells") or []
    chosen = cells if cell is None else cells[cell : cell + 1]
    limited = bool(has.get("pinned") or cell is not None) and not pinned
    others = set(has.get("pinned") or ())
    may_use = sorted({cpu for one in chosen for cpu in one["cpus"]} - others) if limited else []
    return {
        "pinned": pinned, "may_use": tuple(may_use), "cell": cell if cells else None,
        "page_kib": mine.get("page_kib", 0), "pci": tuple(mine.get("pci", ())),
    }  # fmt: skip


def boot_options(view: Deployable) -> tuple[tuple[str, str], ...]:
    """Return what its image says of its boot, for hypervisors that boot no disk by itself."""
    said = view.image.spec if view.image else {}
    return tuple((name, said[name]) for name in ("kernel", "boot_args") if said.get(name))


def instance(
    view: Deployable, disks: Sequence[DiskAttachment], nics: Sequence[NicAttachment], *, other: bool = False
) -> InstanceSpec:
    """Return what the hypervisor defines; other: that of the host where it comes from or goes to."""
    return InstanceSpec(
        id=view.id, name=view.on_host, display_name=view.name, kind=InstanceKind(view.kind), cpu=view.cpu,
        memory_mib=view.memory_mib, disks=tuple(disks), nics=tuple(nics), user_data=view.spec.user_data,
        ssh_keys=tuple(view.spec.ssh_keys), options=boot_options(view), labels=tuple(sorted(view.labels.items())),
        **(_own(view.other, view.other_granted) if other else _own(view.host, view.granted)),
    )  # fmt: skip
