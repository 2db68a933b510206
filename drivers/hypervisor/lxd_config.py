"""From our spec to LXD's JSON and back. Pure; the keys are those of LXD 5.0's doc/instances.md and rest-api.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.ids import from_host
from core.states import InstanceKind, PowerState
from core.units import parse_bytes, spans
from drivers.hypervisor.base import DiskAttachment, ImageOnHost, InstanceSpec, NicAttachment, ObservedInstance
from drivers.storage.seed import seed_texts

ID_KEY = "user.rackflow.id"
ADOPTED_KEY = "user.rackflow.adopted"  # its own name: a copy by another name is not ours
PARCEL_KEY = "user.rackflow.parcel"  # sha256 of the archive that it was imported from
# keys that a spec decides on
_OURS = re.compile(r"^(user\.rackflow\.(id|name|labels)$|limits\.(cpu|memory)|cloud-init\.|raw\.lxc$)")
_POWER = {
    "Running": PowerState.RUNNING, "Ready": PowerState.RUNNING, "Thawed": PowerState.RUNNING,
    "Stopped": PowerState.STOPPED, "Frozen": PowerState.PAUSED, "Error": PowerState.CRASHED,
}  # fmt: skip
_CPU_PERIOD_MS = 100

Json = dict[str, Any]


def container_config(spec: InstanceSpec, managed: Collection[str] = ()) -> Json:
    """Return the body of POST /1.0/instances. managed: bridges that LXD made, so that its DHCP serves them.

    No profile is used: what an operator writes into the default profile must not change our instances.
    """
    root = next(disk for disk in spec.disks if disk.name == "root")
    return {
        "name": spec.name,
        "type": "container",
        "profiles": [],
        "source": {"type": "image", "fingerprint": root.image_fingerprint},
        "config": _config(spec, managed),
        "devices": _devices(spec, managed),
    }


def _config(spec: InstanceSpec, managed: Collection[str]) -> dict[str, str]:
    config = {
        ID_KEY: spec.id,
        "user.rackflow.name": spec.display_name,
        "user.rackflow.labels": json.dumps(dict(spec.labels), sort_keys=True) if spec.labels else "",
        "limits.memory": f"{spec.memory_mib}MiB",
        "raw.lxc": "\n".join(_raw(spec)),
        **_cloud_init(spec, managed),
        **_cpu_limit(spec),
        **dict(spec.options),
    }
    return {key: value for key, value in config.items() if value}


def _raw(spec: InstanceSpec) -> list[str]:
    """Return what LXD has no key for: its host name, and the NUMA cell of its memory. See lxc.container.conf(5)."""
    # People call it by its name, not by that on the host. LXD's limits.cpu.nodes (not in 5.0) binds no memory.
    name = [f"lxc.uts.name = {spec.display_name}"] if spec.display_name else []
    groups = ("cgroup", "cgroup2") if spec.cell is not None else ()  # LXC takes what is of the host's version
    return [*name, *(f"lxc.{group}.cpuset.mems = {spec.cell}" for group in groups)]


def _cpu_limit(spec: InstanceSpec) -> dict[str, str]:
    """Return whole cores as such; fractions, and what keeps off some cores, as a hard share of time over the others."""
    share = {"limits.cpu.allowance": f"{max(round(spec.cpu * _CPU_PERIOD_MS), 1)}ms/{_CPU_PERIOD_MS}ms"}
    if spec.pinned:
        return {"limits.cpu": cpu_set(spec.pinned)}
    if spec.may_use:
        return {"limits.cpu": cpu_set(spec.may_use), **share}
    return {"limits.cpu": str(int(spec.cpu))} if spec.cpu == int(spec.cpu) else share


def cpu_set(cpus: Sequence[int]) -> str:
    """Return cores by number: a single one is a span, since LXD takes a plain number as how many."""
    return spans(cpus) if len(cpus) > 1 else f"{cpus[0]}-{cpus[0]}"


def _cloud_init(spec: InstanceSpec, managed: Collection[str]) -> dict[str, str]:
    """Return what an image with cloud-init reads; a bridge that LXD made gives addresses by DHCP."""
    nics = [replace(nic, address="") if nic.bridge in managed else nic for nic in spec.nics]
    texts = seed_texts(
        instance_id=spec.id, hostname=spec.display_name, ssh_keys=spec.ssh_keys, user_data=spec.user_data, nics=nics
    )
    return {
        "cloud-init.user-data": texts.user_data if spec.user_data or spec.ssh_keys else "",
        # LXD's own meta-data calls it by its name on the host
        "cloud-init.vendor-data": f"#cloud-config\nhostname: {json.dumps(spec.display_name)}\n",
        "cloud-init.network-config": texts.network_config if any(nic.address for nic in nics) else "",
    }


def _devices(spec: InstanceSpec, managed: Collection[str]) -> dict[str, dict[str, str]]:
    devices = {disk.name: _disk(spec, disk) for disk in spec.disks}
    first = {nic.bridge: nic for nic in reversed(spec.nics)}  # LXD's DNS knows an instance once in a network
    return devices | {nic.name: _nic(nic, nic.bridge in managed and first[nic.bridge] is nic) for nic in spec.nics}


def _disk(spec: InstanceSpec, disk: DiskAttachment) -> dict[str, str]:
    if disk.name == "root":
        size = {"size": f"{disk.size_mib}MiB"} if disk.size_mib else {}
        return {"type": "disk", "path": "/", "pool": disk.source, **size}
    return {
        "type": "disk", "pool": disk.source, "source": volume_name(spec.name, disk.name), "path": f"/mnt/{disk.name}",
    }  # fmt: skip


def _nic(nic: NicAttachment, managed: bool) -> dict[str, str]:
    common = {"type": "nic", "name": nic.name, "hwaddr": nic.mac}
    if not managed:
        return {**common, "nictype": "bridged", "parent": nic.bridge}
    address = nic.address.split("/")[0]
    return {**common, "network": nic.bridge, **({"ipv4.address": address} if address else {})}


def volume_name(instance: str, disk: str) -> str:
    """Return the name of an instance's further disk, a custom volume of its pool."""
    return f"{instance}-{disk}"


def custom_volumes(spec: InstanceSpec) -> list[tuple[str, Json]]:
    """Return (pool, body of POST …/volumes/custom) of every further disk."""
    return [
        (
            disk.source,
            {"name": volume_name(spec.name, disk.name), "content_type": "filesystem",
             "config": {"size": f"{disk.size_mib}MiB", ID_KEY: spec.id}},
        )
        for disk in spec.disks
        if disk.name != "root"
    ]  # fmt: skip


def our_id(found: Mapping[str, Any]) -> str | None:
    """Return the id of an instance of ours; a copy that somebody made of one bears its id, and is not."""
    name, instance_id = str(found["name"]), found["config"].get(ID_KEY) or None
    known = from_host(name) == instance_id or found["config"].get(ADOPTED_KEY) == name
    return instance_id if known else None


def volumes_of(name: str, pools: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return (pool, volume) of an instance's further disks, from GET /1.0/storage-pools?recursion=1."""
    found = []
    for pool in pools:
        for url in pool.get("used_by") or []:
            volume = re.search(r"/volumes/custom/([^/?]+)", url)
            if volume and volume[1].startswith(f"{name}-"):
                found.append((str(pool["name"]), volume[1]))
    return found


def changed_config(found: Mapping[str, Any], wanted: Json) -> Json | None:
    """Return the body of PUT /1.0/instances/NAME that brings `found` to `wanted`, or None if it is there already.

    Keys that are none of ours (volatile.*, image.*, what an operator set by hand) stay as they are.
    """
    mine = {key: value for key, value in found["config"].items() if _OURS.match(key) or key in wanted["config"]}
    if mine == wanted["config"] and found["devices"] == wanted["devices"]:
        return None
    others = {key: value for key, value in found["config"].items() if key not in mine}
    return whole_config(found, {**others, **wanted["config"]}, wanted["devices"])


def whole_config(found: Mapping[str, Any], config: Mapping[str, str], devices: Mapping[str, Any]) -> Json:
    """Return the body of PUT /1.0/instances/NAME: what is not in it is taken away."""
    keep = ("architecture", "ephemeral", "profiles", "description", "stateful")
    return {**{key: found[key] for key in keep if key in found}, "config": config, "devices": devices}


def half_made(found: Mapping[str, Any]) -> bool:
    """Say whether LXD died while it unpacked the image: it keeps the record, and the root disk is not whole.

    Seen with 5.0.2: at the end of the making it sets volatile.apply_template, which stays until the first start.
    """
    config = found["config"]
    if ADOPTED_KEY in config or PARCEL_KEY in config:  # LXD has not made it from an image of ours
        return False
    begun = config.get("volatile.apply_template") or config.get("volatile.last_state.power")
    return not begun and found["last_used_at"].startswith(("1970", "0001"))


def observed(found: Mapping[str, Any]) -> ObservedInstance:
    """Return an instance from LXD's JSON: with "state" (recursion) all that is known, else without usage."""
    config, state = found.get("expanded_config") or found["config"], found.get("state") or {}
    power = _POWER.get(found["status"], PowerState.UNKNOWN)
    running = power is PowerState.RUNNING
    usage_ns, usage_bytes = (state.get("cpu") or {}).get("usage", -1), (state.get("memory") or {}).get("usage", 0)
    return ObservedInstance(
        name=found["name"],
        power=power,
        kind=InstanceKind.VM if found["type"] == "virtual-machine" else InstanceKind.CONTAINER,
        instance_id=found["config"].get(ID_KEY) or None,
        cpus=_cpus(config),
        memory_mib=_memory_mib(config.get("limits.memory", "")),
        cpu_seconds=usage_ns / 1e9 if running and usage_ns >= 0 else None,
        memory_used_mib=-(-usage_bytes // 2**20) if running and state else None,
        disks=tuple(_disk_source(found["name"], d) for d in _disks(found)),
        addresses=_addresses(state.get("network") or {}),
        reason="" if power is not PowerState.CRASHED else f"LXD says {found['status']}",
    )


def _cpus(config: Mapping[str, str]) -> float:
    """Return cores of limits.cpu ("2", or a set as "0,2-3") or of limits.cpu.allowance ("50ms/100ms")."""
    share = re.fullmatch(r"(\d+)ms/(\d+)ms", config.get("limits.cpu.allowance", ""))
    if share:
        return int(share[1]) / int(share[2])
    cores = config.get("limits.cpu", "")
    if "," not in cores and "-" not in cores:
        return float(cores or 0)
    spans = [part.split("-") for part in cores.split(",")]
    return float(sum(int(span[-1]) - int(span[0]) + 1 for span in spans))


def _memory_mib(limit: str) -> int:
    return 0 if not limit or limit.endswith("%") else parse_bytes(limit) // 2**20


def _disks(found: Mapping[str, Any]) -> list[Mapping[str, str]]:
    devices = (found.get("expanded_devices") or found["devices"]).values()
    return [device for device in devices if device["type"] == "disk"]


def _disk_source(name: str, device: Mapping[str, str]) -> str:
    return f"{device.get('pool', '')}/{device.get('source', name)}"


def _addresses(network: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        address["address"]
        for name, link in network.items() if name != "lo"
        for address in link.get("addresses") or [] if address["scope"] == "global"
    )  # fmt: skip


def image(found: Mapping[str, Any]) -> ImageOnHost:
    """Return an image from LXD's JSON."""
    return ImageOnHost(found["fingerprint"], int(found["size"]), dict(found.get("properties") or {}))
