"""Write LAB_DIR/lab.yaml: the lab's hosts, networks and images as a blueprint, for `rackflow apply -f`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lab import bmc_process, keys
from lab.images import BUSYBOX, TINY, image_path
from lab.preflight import memory_mib
from lab.settings import LabSettings
from lab.topology import LabHost, Topology

_DECLARED_CPUS = 8  # every host shows the whole machine's; a rack server's number lets placement be seen at work


def write_blueprint(settings: LabSettings, topology: Topology) -> Path:
    """Write it and return its path; sizes are declared, since every host reports the whole machine's."""
    share_mib = declared_memory_mib(len(topology.hosts))
    parts = ["# Written by `lab up`: all that `rackflow apply -f` needs to make a cloud of this lab.", "hosts:"]
    parts += [_host(settings, host, share_mib) for host in topology.hosts]
    parts.append(_NETWORKS.format(net=settings.net))
    parts.append("images:")
    parts += [_image(settings, "tiny", "vm", TINY, "min_memory: 112MiB")]
    parts += [_image(settings, "busybox", "container", BUSYBOX, "os: busybox")]
    path = settings.dir / "lab.yaml"
    path.write_text("\n".join(parts) + "\n")
    return path


def declared_memory_mib(hosts: int) -> int:
    """Return a host's share: three quarters of this machine's, in steps of 256 MiB, 512 MiB to 16 GiB."""
    return max(512, min(16384, memory_mib("MemTotal") * 3 // 4 // hosts // 256 * 256))


def _host(settings: LabSettings, host: LabHost, share_mib: int) -> str:
    lines = [
        f"- name: {host.name}",
        f"  address: {settings.management(host.last_octet)}",
        "  user: root",
        f"  driver: {host.kind}",
        f"  key_file: {settings.key}",
        f"  fingerprint: {keys.fingerprint(settings, host)}",
        f"  cpus: {_DECLARED_CPUS}",
        f"  memory: {share_mib}MiB",
    ]
    bmc = {
        "address": f"http://127.0.0.1:{settings.bmc_port}", "user": bmc_process.USER,
        "password_file": bmc_process.password_file(settings), "system": host.name,
    }  # fmt: skip
    lines += ["  bmc:", *(f"    {name}: {value}" for name, value in bmc.items())]
    if host.kind == "lxd":
        gateway = settings.containers(host.number).replace(".0/24", ".1/24")
        lines += ["  bridges:", f"  - {{name: lxcbr0, address: {gateway}}}"]
    return "\n".join([*lines, "  labels: {lab: 'yes'}"])


_NETWORKS = """networks:
- name: lan  # one flat network of all hosts; this machine is .1 on it
  bridge: br0
  addressing: pool
  subnet: {net}.17.0/24
  ranges:
  - {{first: {net}.17.100, last: {net}.17.250}}
  default_for: [vm]
- name: containers  # every LXD host has a subnet of its own; this machine has a route to each
  bridge: lxcbr0
  addressing: host
  default_for: [container]"""


def _image(settings: LabSettings, name: str, kind: str, file: str, extra: str) -> str:
    path = image_path(settings, file)
    with path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return f"- name: {name}\n  kind: {kind}\n  source: {path}\n  sha256: {sha256}\n  {extra}"
