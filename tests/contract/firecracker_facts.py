"""Firecracker's API as facts: its requests, what they carry, and with which status they are answered.

Read off src/firecracker/swagger/firecracker.yaml of github.com/firecracker-microvm/firecracker, `info.version`
1.17.0-dev, commit 004d935399ba6062240af269638635d54229f5bf: all requests, and the definitions of those that the driver
makes or the lab's shim answers. `document()` gives them the form of that file, so that one check works on either.
"""

from __future__ import annotations

from typing import Any

VERSION = "1.17.0-dev"
TEXT, NUMBER, FLAG, ANY = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"type": "object"}
FREE = {"type": "object", "additionalProperties": True}


def _object(required: str = "", **fields: Any) -> dict[str, Any]:
    return {"type": "object", **({"required": required.split()} if required else {}), "properties": fields}


def _one_of(*words: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


def _number(least: int, most: int | None = None) -> dict[str, Any]:
    return {"type": "integer", "minimum": least} | ({} if most is None else {"maximum": most})


def _many(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _as(name: str) -> dict[str, str]:
    return {"$ref": f"#/definitions/{name}"}


_GUEST_SAYS = (
    "swap_in swap_out major_faults minor_faults free_memory total_memory available_memory disk_caches "
    "hugetlb_allocations hugetlb_failures oom_kill alloc_stall async_scan direct_scan async_reclaim direct_reclaim"
)
DEFINITIONS: dict[str, dict[str, Any]] = {
    "Balloon": _object(
        "amount_mib deflate_on_oom", amount_mib=NUMBER, deflate_on_oom=FLAG, stats_polling_interval_s=NUMBER,
        free_page_hinting=FLAG, free_page_reporting=FLAG,
    ),
    "BalloonUpdate": _object("amount_mib", amount_mib=NUMBER),
    "BalloonStats": _object(
        "target_pages actual_pages target_mib actual_mib", target_pages=NUMBER, actual_pages=NUMBER, target_mib=NUMBER,
        actual_mib=NUMBER, **dict.fromkeys(_GUEST_SAYS.split(), NUMBER),
    ),
    "BootSource": _object("kernel_image_path", boot_args=TEXT, initrd_path=TEXT, kernel_image_path=TEXT),
    "CpuTemplate": _one_of("C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None"),
    "Drive": _object(
        "drive_id is_root_device", drive_id=TEXT, partuuid=TEXT, is_root_device=FLAG,
        cache_type=_one_of("Unsafe", "Writeback"), is_read_only=FLAG, path_on_host=TEXT,
        rate_limiter=_as("RateLimiter"), io_engine=_one_of("Sync", "Async"), socket=TEXT,
    ),
    "EntropyDevice": _object(rate_limiter=_as("RateLimiter")),
    "Error": _object(fault_message=TEXT),
    "FirecrackerVersion": _object("firecracker_version", firecracker_version=TEXT),
    "InstanceActionInfo": _object(
        "action_type", action_type=_one_of("FlushMetrics", "InstanceStart", "SendCtrlAltDel")
    ),
    "InstanceInfo": _object(
        "app_name id state vmm_version", app_name=TEXT, id=TEXT, state=_one_of("Not started", "Running", "Paused"),
        vmm_version=TEXT,
    ),
    "MachineConfiguration": _object(
        "mem_size_mib vcpu_count", cpu_template=_as("CpuTemplate"), smt=FLAG, mem_size_mib=NUMBER,
        track_dirty_pages=FLAG, vcpu_count=_number(1, 32), huge_pages=_one_of("None", "Transparent", "2M"),
    ),
    "MemoryBackend": _object("backend_type backend_path", backend_type=_one_of("File", "Uffd"), backend_path=TEXT),
    "MmdsConfig": _object(
        "network_interfaces", version=_one_of("V1", "V2"), network_interfaces=_many(TEXT), ipv4_address=TEXT,
        imds_compat=FLAG,
    ),
    "MmdsContentsObject": FREE,
    "NetworkInterface": _object(
        "host_dev_name iface_id", guest_mac=TEXT, host_dev_name=TEXT, iface_id=TEXT, mtu=_number(68, 65535),
        rx_rate_limiter=_as("RateLimiter"), tx_rate_limiter=_as("RateLimiter"),
    ),
    "NetworkOverride": _object("iface_id host_dev_name", iface_id=TEXT, host_dev_name=TEXT),
    "RateLimiter": _object(bandwidth=_as("TokenBucket"), ops=_as("TokenBucket")),
    "SnapshotCreateParams": _object(
        "mem_file_path snapshot_path", mem_file_path=TEXT, snapshot_path=TEXT, snapshot_type=_one_of("Full", "Diff")
    ),
    "SnapshotLoadParams": _object(
        "snapshot_path", enable_diff_snapshots=FLAG, track_dirty_pages=FLAG, mem_file_path=TEXT,
        mem_backend=_as("MemoryBackend"), snapshot_path=TEXT, resume_vm=FLAG,
        network_overrides=_many(_as("NetworkOverride")), vsock_override=_as("VsockOverride"), clock_realtime=FLAG,
    ),
    "TokenBucket": _object("refill_time size", one_time_burst=_number(0), refill_time=_number(0), size=_number(0)),
    "Vm": _object("state", state=_one_of("Paused", "Resumed")),
    "VsockOverride": _object("uds_path", uds_path=TEXT),
}  # fmt: skip

# Path, method, what is sent ("" nothing, "?" before it: may be left out), status when done, what is answered then, and
# the other statuses that have a meaning of their own. Whatever else goes wrong is `default`.
_REQUESTS = """
/                               GET    -                    200 InstanceInfo
/actions                        PUT    InstanceActionInfo   204 -                     400
/balloon                        GET    -                    200 Balloon               400
/balloon                        PUT    Balloon              204 -                     400
/balloon                        PATCH  BalloonUpdate        204 -                     400
/balloon/statistics             GET    -                    200 BalloonStats          400
/balloon/statistics             PATCH  BalloonStatsUpdate   204 -                     400
/balloon/hinting/start          PATCH  ?BalloonStartCmd     204 -                     400
/balloon/hinting/status         GET    -                    200 BalloonHintingStatus  400
/balloon/hinting/stop           PATCH  -                    204 -                     400
/boot-source                    PUT    BootSource           204 -                     400
/cpu-config                     PUT    ?CpuConfig           204 -                     400
/drives/{drive_id}              PUT    Drive                204 -                     400
/drives/{drive_id}              PATCH  PartialDrive         204 -                     400
/pmem/{id}                      PUT    Pmem                 204 -                     400
/pmem/{id}                      PATCH  PartialPmem          204 -                     400
/logger                         PUT    Logger               204 -                     400
/machine-config                 GET    -                    200 MachineConfiguration
/machine-config                 PUT    ?MachineConfiguration 204 -                    400
/machine-config                 PATCH  ?MachineConfiguration 204 -                    400
/metrics                        PUT    Metrics              204 -                     400
/mmds                           PUT    ?MmdsContentsObject  204 -                     400
/mmds                           PATCH  ?MmdsContentsObject  204 -                     400
/mmds                           GET    -                    200 *                     404
/mmds/config                    PUT    MmdsConfig           204 -                     400
/entropy                        PUT    EntropyDevice        204 -
/serial                         PUT    SerialDevice         204 -
/hotplug/memory                 PUT    MemoryHotplugConfig  204 -
/hotplug/memory                 PATCH  MemoryHotplugSizeUpdate 204 -
/hotplug/memory                 GET    -                    200 MemoryHotplugStatus
/network-interfaces/{iface_id}  PUT    NetworkInterface     204 -                     400
/network-interfaces/{iface_id}  PATCH  PartialNetworkInterface 204 -                  400
/snapshot/create                PUT    SnapshotCreateParams 204 -                     400
/snapshot/load                  PUT    SnapshotLoadParams   204 -                     400
/version                        GET    -                    200 FirecrackerVersion
/vm                             PATCH  Vm                   204 -                     400
/vm/config                      GET    -                    200 FullVmConfiguration
/vsock                          PUT    Vsock                204 -                     400
"""


def _responses(status: str, answer: str, others: list[str]) -> dict[str, Any]:
    schema = {"schema": FREE if answer == "*" else _as(answer)} if answer != "-" else {}
    return {status: schema, **{one: {"schema": _as("Error")} for one in (*others, "default")}}


def document() -> dict[str, Any]:
    """Return the facts as the published document has them: Swagger 2.0."""
    paths: dict[str, Any] = {}
    for path, method, body, status, answer, *others in map(str.split, _REQUESTS.strip().splitlines()):
        operation: dict[str, Any] = {"responses": _responses(status, answer, others)}
        if body != "-":
            required = {} if body.startswith("?") else {"required": True}
            operation["parameters"] = [{"in": "body", "schema": _as(body.lstrip("?")), **required}]
        paths.setdefault(path, {})[method.lower()] = operation
    return {"swagger": "2.0", "info": {"version": VERSION}, "paths": paths, "definitions": DEFINITIONS}
