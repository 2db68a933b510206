"""What passes: copies, imports, snapshots and archives of containers, as LXD's JSON. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from core.ids import on_host
from drivers.hypervisor.lxd_config import ID_KEY, PARCEL_KEY, Json
from drivers.hypervisor.powers import SnapshotSeen

SNAPSHOT_PART = "rackflow-part"  # a snapshot that is not whole yet
IMPORTS = ("import", "import2", "import3")
_PASSING = re.compile(rf"^rf-[0-9a-hjkmnp-tv-z]{{20}}-(copy|{'|'.join(IMPORTS)})$")


def passing_name(instance_id: str, purpose: str) -> str:
    """Return the name of an instance that is there for the time of one verb. purpose: copy, or one of IMPORTS."""
    return f"{on_host(instance_id)}-{purpose}"


def is_passing(name: str) -> bool:
    """Say whether it is such a name."""
    return _PASSING.match(name) is not None


def further_disks(found: Mapping[str, Any]) -> list[str]:
    """Return the names of all disks but the root disk."""
    devices = found.get("expanded_devices") or found["devices"]
    return sorted(name for name, one in devices.items() if one["type"] == "disk" and one.get("path") != "/")


def root_pool(found: Mapping[str, Any]) -> str:
    """Return the pool of the root disk."""
    devices = (found.get("expanded_devices") or found["devices"]).values()
    return next((one["pool"] for one in devices if one["type"] == "disk" and one.get("path") == "/"), "")


def copy_of(found: Mapping[str, Any], name: str, *, snapshots: bool) -> Json:
    """Return the body of POST /1.0/instances for a copy with the root disk only, which is nobody's.

    LXD adds all keys and devices of the source that are not named, hence "none" and "". The profiles are not taken
    over: of what they give, the root disk alone is needed. The name of an adopted one stays in its configuration.
    """
    devices = dict(found.get("expanded_devices") or found["devices"])
    root = {key: dict(one) for key, one in devices.items() if one["type"] == "disk" and one.get("path") == "/"}
    return {
        "name": name,
        "type": "container",
        "profiles": [],
        "source": {"type": "copy", "source": found["name"], "instance_only": not snapshots},
        "config": {ID_KEY: "", PARCEL_KEY: ""},
        "devices": {**{key: {"type": "none"} for key in devices if key not in root}, **root},
    }


def archive_key(found: Mapping[str, Any], snapshots: Sequence[Mapping[str, Any]]) -> str:
    """Return what an archive of a container that is off is known by: another one, as soon as it ran or was changed."""
    taken = [[one["name"], one["created_at"]] for one in snapshots]
    state = [found["config"], found["devices"], found["last_used_at"], taken]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def bound_snapshots(snapshots: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of those whose NICs have fixed addresses: LXD refuses them where that network is another one."""
    return [
        snapshot_name(one) for one in snapshots
        if any(device["type"] == "nic" and device.get("ipv4.address") for device in one["expanded_devices"].values())
    ]  # fmt: skip


def snapshot_name(found: Mapping[str, Any]) -> str:
    return str(found["name"]).rpartition("/")[2]


def snapshots_seen(found: Sequence[Mapping[str, Any]]) -> list[SnapshotSeen]:
    """Return snapshots from GET …/snapshots?recursion=1, the oldest first, without one that is not whole."""
    ordered = sorted(found, key=lambda one: str(one["created_at"]))
    seen = [SnapshotSeen(snapshot_name(one), bool(one["stateful"]), one["created_at"]) for one in ordered]
    return [one for one in seen if one.name != SNAPSHOT_PART]


def kept_config(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """Return the config of a reverted instance: as before, but for what LXD itself notes (volatile.*)."""
    kept = {key: value for key, value in before["config"].items() if not key.startswith("volatile.")}
    return {**{key: value for key, value in after["config"].items() if key.startswith("volatile.")}, **kept}
