"""Firecracker's API as the shim answers it: what may be asked before the boot, and what after it, as a table.

Paths, fields and when each request is allowed: Firecracker's OpenAPI document, 1.17.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

from lab.firecracker.machine import command_line
from lab.firecracker.qmp import Failed, Qmp

_MIB = 2**20
_ELF = b"\x7fELF"
_STATISTICS = {  # virtio-balloon's names in QEMU -> Firecracker's
    "stat-free-memory": "free_memory", "stat-total-memory": "total_memory", "stat-available-memory": "available_memory",
    "stat-disk-caches": "disk_caches", "stat-major-faults": "major_faults", "stat-minor-faults": "minor_faults",
    "stat-swap-in": "swap_in", "stat-swap-out": "swap_out",
}  # fmt: skip


class Refused(Exception):
    """400, with a text of our own."""


class Microvm:
    """One microVM and its state. root: put before each path; start: become QEMU with this command line."""

    def __init__(
        self, name: str, root: str, qmp: socket.socket, start: Callable[[Sequence[str]], None], log: str, metrics: str
    ) -> None:
        self.name, self.root = name, root
        self.state = "Not started"
        self.config: dict[str, Any] = {
            "machine-config": {"vcpu_count": 1, "mem_size_mib": 128}, "drives": [], "network-interfaces": []
        }  # fmt: skip
        self.mmds: Any = None
        self.qmp = Qmp(qmp)
        self._start = start
        self._log, self._metrics = log, metrics

    def log(self, text: str) -> None:
        """Write a line to the log, or to stderr."""
        with open(self.root + self._log if self._log else "/dev/stderr", "a") as file:
            file.write(f"[{self.name}] {text}\n")

    def configure(self, config: Mapping[str, Any]) -> None:
        """Take a configuration file, part by part, and boot."""
        for part, body in config.items():
            if part in ("drives", "network-interfaces"):
                key = "drive_id" if part == "drives" else "iface_id"
                for one in body:
                    self.handle("PUT", f"/{part}/{one[key]}", one)
            else:
                self.handle("PUT", f"/{part.replace('mmds-config', 'mmds/config')}", body)
        self.handle("PUT", "/actions", {"action_type": "InstanceStart"})

    def handle(self, method: str, path: str, body: Any) -> Any:
        """Do a request and return what it answers. Raise Refused."""
        for rule in _RULES:
            found = re.fullmatch(rule.path, path) if rule.method == method else None
            if found is None:
                continue
            booted = self.state != "Not started"
            if rule.when == "before" and booted:
                raise Refused(f"{method} {path} is not allowed once the microVM runs")
            if rule.when == "after" and not booted:
                raise Refused(f"{method} {path} is allowed only once the microVM runs")
            try:
                return rule.do(self, body, *found.groups())
            except (KeyError, TypeError, OSError, Failed) as error:
                raise Refused(f"{method} {path}: {error!r}") from error
        raise Refused(f"no such request: {method} {path}")

    def files(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a configuration with its files as they are called outside of the jail. Raise OSError."""
        found = json.loads(json.dumps(config))
        for key in ("kernel_image_path", "initrd_path"):
            if found["boot-source"].get(key):
                found["boot-source"][key] = self.root + found["boot-source"][key]
                Path(found["boot-source"][key]).open("rb").close()
        for drive in found["drives"]:
            drive["path_on_host"] = self.root + drive["path_on_host"]
            Path(drive["path_on_host"]).open("rb" if drive.get("is_read_only") else "r+b").close()
        return dict(found)

    def start(self, incoming: str = "") -> None:
        """Boot, or go on from saved memory: stopped."""
        self._start(command_line(self.files(self.config), incoming))
        self.qmp.call("query-status")


def _boot_source(vm: Microvm, body: Any) -> None:
    with open(vm.root + body["kernel_image_path"], "rb") as kernel:
        if kernel.read(4) != _ELF:  # Firecracker takes no bzImage
            raise Refused("the kernel is no ELF file")
    vm.config["boot-source"] = body


def _machine(vm: Microvm, body: Any) -> None:
    if not 1 <= body["vcpu_count"] <= 32:
        raise Refused("vcpu_count is to be from 1 to 32")
    vm.config["machine-config"] = body


def _listed(part: str, key: str) -> Callable[[Microvm, Any, str], None]:
    def put(vm: Microvm, body: Any, name: str) -> None:
        if body[key] != name:
            raise Refused("the path and the body name different ones")
        vm.config[part] = [one for one in vm.config[part] if one[key] != name] + [body]

    return put


def _part(name: str) -> Callable[[Microvm, Any], None]:
    def put(vm: Microvm, body: Any) -> None:
        vm.config[name] = body

    return put


def _action(vm: Microvm, body: Any) -> None:
    kind = body["action_type"]
    if kind == "InstanceStart":
        if vm.state != "Not started" or "boot-source" not in vm.config:
            raise Refused("it runs already, or has no kernel")
        vm.start()
        vm.qmp.call("cont")
        vm.state = "Running"
    elif vm.state == "Not started":
        raise Refused(f"{kind} is allowed only once the microVM runs")
    elif kind == "SendCtrlAltDel":
        keys = [{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")]
        vm.qmp.call("send-key", keys=keys)
    elif kind == "FlushMetrics":
        _flush(vm)
    else:
        raise Refused(f"unknown action {kind}")


def _flush(vm: Microvm) -> None:
    """Write some of Firecracker's metrics: those that QEMU counts as well."""
    if not vm._metrics:
        raise Refused("no metrics are set up")
    block = {"read_bytes": 0, "write_bytes": 0, "read_count": 0, "write_count": 0, "flush_count": 0}
    for one in vm.qmp.call("query-blockstats"):
        stats = one["stats"]
        for name, key in (("read_bytes", "rd_bytes"), ("write_bytes", "wr_bytes"), ("read_count", "rd_operations"),
                          ("write_count", "wr_operations"), ("flush_count", "flush_operations")):  # fmt: skip
            block[name] += stats[key]
    with open(vm.root + vm._metrics, "a") as file:
        file.write(json.dumps({"utc_timestamp_ms": 0, "block": block}) + "\n")


def _vm(vm: Microvm, body: Any) -> None:
    state = {"Paused": "Paused", "Resumed": "Running"}[body["state"]]
    vm.qmp.call("stop" if state == "Paused" else "cont")
    vm.state = state


def _snapshot(vm: Microvm, body: Any) -> None:
    if vm.state != "Paused":
        raise Refused("it is to be paused for that")
    vm.qmp.save_memory(vm.root + body["mem_file_path"])
    state = {"config": vm.config, "id": vm.name}
    Path(vm.root + body["snapshot_path"]).write_text(json.dumps(state))


def _load(vm: Microvm, body: Any) -> None:
    backend = body["mem_backend"]
    if backend["backend_type"] != "File":
        raise Refused("the shim reads memory from files only")
    memory = Path(vm.root + backend["backend_path"])
    memory.open("rb").close()
    vm.config = json.loads(Path(vm.root + body["snapshot_path"]).read_text())["config"]
    vm.start(str(memory))
    vm.qmp.wait_for_memory()
    vm.state = "Paused"
    if body.get("resume_vm"):
        _vm(vm, {"state": "Resumed"})


def _balloon(vm: Microvm, body: Any) -> None:
    size = vm.config["machine-config"]["mem_size_mib"]
    vm.qmp.call("balloon", value=max(1, size - body["amount_mib"]) * _MIB)
    vm.config["balloon"]["amount_mib"] = body["amount_mib"]


def _statistics(vm: Microvm, _: Any) -> dict[str, Any]:
    every_s = vm.config["balloon"].get("stats_polling_interval_s")
    if not every_s:
        raise Refused("statistics were not asked for")
    where = "/machine/peripheral/balloon"
    vm.qmp.call("qom-set", path=where, property="guest-stats-polling-interval", value=every_s)
    seen = vm.qmp.call("qom-get", path=where, property="guest-stats")["stats"]
    target = vm.config["balloon"]["amount_mib"]
    actual = vm.config["machine-config"]["mem_size_mib"] - vm.qmp.call("query-balloon")["actual"] // _MIB
    sizes = {"target_mib": target, "actual_mib": actual, "target_pages": target * 256, "actual_pages": actual * 256}
    said = {ours: seen[theirs] for theirs, ours in _STATISTICS.items() if 0 <= seen.get(theirs, -1) < 2**63}
    return {**sizes, **said}


def _patch_mmds(vm: Microvm, body: Any) -> None:
    if vm.mmds is None:
        raise Refused("there is no metadata to change")
    vm.mmds = {**vm.mmds, **body}


def _put_mmds(vm: Microvm, body: Any) -> None:
    vm.mmds = body


@dataclass(frozen=True)
class _Rule:
    """when: before the boot, after it, or ever."""

    method: str
    path: str
    when: str
    do: Callable[..., Any]


_RULES = (
    _Rule("GET", "/", "ever", lambda vm, _: {
        "id": vm.name, "state": vm.state, "vmm_version": "1.17.0", "app_name": "Firecracker"}),
    _Rule("GET", "/version", "ever", lambda vm, _: {"firecracker_version": "1.17.0"}),
    _Rule("GET", "/vm/config", "ever", lambda vm, _: vm.config),
    _Rule("GET", "/machine-config", "ever", lambda vm, _: vm.config["machine-config"]),
    _Rule("PUT", "/machine-config", "before", _machine),
    _Rule("PUT", "/boot-source", "before", _boot_source),
    _Rule("PUT", "/drives/([^/]+)", "before", _listed("drives", "drive_id")),
    _Rule("PUT", "/network-interfaces/([^/]+)", "before", _listed("network-interfaces", "iface_id")),
    _Rule("PUT", "/entropy", "before", _part("entropy")),
    _Rule("PUT", "/mmds/config", "before", _part("mmds-config")),
    _Rule("PUT", "/mmds", "ever", _put_mmds),
    _Rule("PATCH", "/mmds", "ever", _patch_mmds),
    _Rule("GET", "/mmds", "ever", lambda vm, _: vm.mmds),
    _Rule("PUT", "/balloon", "before", _part("balloon")),
    _Rule("GET", "/balloon", "ever", lambda vm, _: vm.config["balloon"]),
    _Rule("PATCH", "/balloon", "after", _balloon),
    _Rule("GET", "/balloon/statistics", "after", _statistics),
    _Rule("PUT", "/actions", "ever", _action),
    _Rule("PATCH", "/vm", "after", _vm),
    _Rule("PUT", "/snapshot/create", "after", _snapshot),
    _Rule("PUT", "/snapshot/load", "before", _load),
)  # fmt: skip


def serve(vm: Microvm, listener: socket.socket) -> None:
    """Answer requests, one after the other, until QEMU has ended."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            try:
                body = json.loads(self.rfile.read(length)) if length else None
                status, said = 200, vm.handle(self.command, self.path, body)
            except (Refused, ValueError) as error:
                status, said = 400, {"fault_message": str(error)}
            content = b"" if said is None else json.dumps(said).encode()
            self.send_response(status if content else 204)
            if content:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = True

        do_GET = do_PUT = do_PATCH = answer

        def address_string(self) -> str:
            return "a unix socket"

        def log_message(self, format: str, *args: Any) -> None:
            vm.log(format % args)

    class Server(UnixStreamServer):
        def __init__(self) -> None:
            super().__init__("", Handler, bind_and_activate=False)
            self.socket = listener

    Server().serve_forever()
