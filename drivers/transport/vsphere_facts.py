"""What the API says of the machines of a place, in the form of what one look over SSH says of others."""

from __future__ import annotations

from typing import Any

from core.errors import NotFound
from drivers.hosts import HostFacts
from drivers.transport.vsphere_place import Place, Properties, read, read_one

_HOST = ("name", "summary.hardware", "summary.config.product.fullName", "summary.config.product.build",
         "config.network.pnic", "config.network.vnic")  # fmt: skip


def facts_of(content: Any, place: Place) -> HostFacts:
    """Return the facts of a host; of a cluster those that add up, and what its first host says.

    Raise NotFound (a cluster without hosts).
    """
    hosts = [values for _, values in read(content, place.hosts, _HOST)]
    if not hosts:
        raise NotFound("there is no host in this cluster", fix="add one in vSphere, and enroll it again")
    hardware, first, about = [one["summary.hardware"] for one in hosts], hosts[0], content.about
    name = first["name"] if place.one_host else read_one(content, place.compute, ["name"])["name"]
    identity = hardware[0].uuid if place.one_host else f"{about.instanceUuid}/{place.pool._moId}"
    nics = _nics(first)
    return HostFacts(
        hostname=name, machine_id=identity, architecture="x86_64", os=first["summary.config.product.fullName"],
        kernel=f"build {first.get('summary.config.product.build', '')}".strip(),
        cpus=sum(one.numCpuThreads for one in hardware), cpu_model=hardware[0].cpuModel,
        memory_mib=sum(one.memorySize for one in hardware) // 2**20, disks=[], nics=nics,
        management_nic=next((one["name"] for one in nics if one["addresses"]), ""),
        virtualisation={"vcenter": place.is_vcenter, "hosts": len(hosts)},
        versions={"vsphere": f"{about.name} {about.version}"}, kinds=["esxi"],
    )  # fmt: skip


def _nics(host: Properties) -> list[dict[str, Any]]:
    """Return the physical NICs, which have no addresses, and the host's own ends on its switches, which have."""
    physical = [
        {"name": one.device, "mac": one.mac, "addresses": [], "state": "up" if one.linkSpeed else "down",
         "speed_mbps": one.linkSpeed.speedMb if one.linkSpeed else None, "bridge": ""}
        for one in host.get("config.network.pnic", ())
    ]  # fmt: skip
    own = [
        {"name": one.device, "mac": one.spec.mac or "", "addresses": [one.spec.ip.ipAddress], "state": "up",
         "speed_mbps": None, "bridge": one.portgroup or ""}
        for one in host.get("config.network.vnic", ()) if one.spec.ip and one.spec.ip.ipAddress
    ]  # fmt: skip
    return physical + own
