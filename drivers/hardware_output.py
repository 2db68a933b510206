"""What the tools of hardware checks print, as outcomes: pure functions of a result.

memtester(8): exit 2 a stuck address, 4 another failure. smartctl(8): --json since smartmontools 7.0. fio: JSON output.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from drivers.transport.base import Result

_SAID = 500  # letters of what a tool said that are kept
_WORN_PERCENT = 100  # of an NVMe drive's rated life
_REALLOCATED = 5  # ATA attribute: sectors that were given up


@dataclass(frozen=True)
class Outcome:
    """passed None: it could not be tried, and evidence["why"] says why. figure: in unit."""

    name: str
    passed: bool | None
    figure: float | None = None
    unit: str = ""
    require: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)


def _last(result: Result) -> str:
    """Return the end of what a tool said, without the backspaces of its progress."""
    said = re.sub(r".?\x08", "", result.stdout + result.stderr)
    return said.strip()[-_SAID:]


def disks(text: str) -> tuple[str, ...]:
    """Return the whole disks that lsblk names."""
    rows = json.loads(text)["blockdevices"] if text.strip() else []
    return tuple(f"/dev/{row['name']}" for row in rows if row["type"] == "disk" and int(row["size"]) > 0)


def memory(result: Result, size_mib: int) -> Outcome:
    """Return what memtester found."""
    evidence = {} if result.exit_code == 0 else {"exit": result.exit_code, "said": _last(result)}
    if result.exit_code == 1:  # it could not get the memory: nothing is known of it
        evidence["why"] = f"there were no {size_mib} MiB to be tried"
        return Outcome("memory", None, None, "MiB", "no error", evidence)
    return Outcome("memory", result.exit_code == 0, float(size_mib), "MiB", "no error", evidence)


def disk_health(result: Result, disk: str) -> Outcome:
    """Return what a disk says of itself by SMART; one of a virtual machine says nothing."""
    name, said = f"disk-health {disk}", json.loads(result.stdout)
    verdict = (said.get("smart_status") or {}).get("passed")
    if verdict is None:
        messages = [one["string"] for one in said["smartctl"].get("messages", ())]
        return Outcome(name, None, None, "", "SMART passed", {"why": "; ".join(messages) or "it speaks no SMART"})
    nvme = said.get("nvme_smart_health_information_log") or {}
    table = {row["id"]: row["raw"]["value"] for row in (said.get("ata_smart_attributes") or {}).get("table", ())}
    worn, lost = nvme.get("percentage_used"), table.get(_REALLOCATED)
    evidence = {
        "model": said.get("model_name"), "serial": said.get("serial_number"),
        "celsius": (said.get("temperature") or {}).get("current"),
        "hours": (said.get("power_on_time") or {}).get("hours"), "worn_percent": worn, "reallocated": lost,
    }  # fmt: skip
    kept = {key: value for key, value in evidence.items() if value is not None}
    sound = bool(verdict) and (worn is None or worn < _WORN_PERCENT)
    figure, unit = (worn, "% worn") if worn is not None else (lost, "sectors reallocated")
    return Outcome(name, sound, None if figure is None else float(figure), unit, "SMART passed", kept)


def disk_rate(result: Result, disk: str, least_mbps: float) -> Outcome:
    """Return how fast a disk was read at random, in blocks of 64 KiB."""
    name, require = f"disk-read {disk}", f">= {least_mbps:g} MB/s" if least_mbps else "no error"
    begin = result.stdout.find("{")  # fio may complain before it
    if begin < 0:
        return Outcome(name, False, None, "MB/s", require, {"exit": result.exit_code, "said": _last(result)})
    (job,) = json.loads(result.stdout[begin:])["jobs"]
    read = job["read"]
    mbps = read["bw_bytes"] / 1e6
    sound = result.exit_code == 0 and job["error"] == 0 and read["io_bytes"] > 0
    late = read["clat_ns"].get("percentile", {}).get("99.000000")
    evidence = {"iops": round(read["iops"]), **({"p99_ms": round(late / 1e6, 2)} if late else {})}
    if not sound:
        evidence |= {"exit": result.exit_code, "error": job["error"], "said": _last(result)[-200:]}
    return Outcome(name, sound and mbps >= least_mbps, round(mbps, 1), "MB/s", require, evidence)


def link(result: Result, nic: str, crc_errors: int, least_mbps: int) -> Outcome:
    """Return how a NIC's link is; without a cable nothing can be said of it."""
    name = f"network {nic}"
    said = dict(re.findall(r"^\s*([\w -]+): (.+)$", result.stdout, re.MULTILINE))
    require = f"full duplex, no CRC errors{f', >= {least_mbps} Mbit/s' if least_mbps else ''}"
    if result.exit_code != 0 or said.get("Link detected") != "yes":
        why = "no link" if result.exit_code == 0 else _last(result)
        return Outcome(name, None, None, "Mbit/s", require, {"why": why})
    speed = re.match(r"(\d+)Mb/s", said.get("Speed", ""))
    mbps, duplex = int(speed[1]) if speed else None, said.get("Duplex", "")
    wrong = [
        *(["half duplex"] if duplex == "Half" else []), *([f"{crc_errors} CRC errors"] if crc_errors else []),
        *(["too slow"] if least_mbps and (mbps or 0) < least_mbps else []),
    ]  # fmt: skip
    evidence = {"duplex": duplex, "crc_errors": crc_errors, **({"wrong": wrong} if wrong else {})}
    return Outcome(name, not wrong, None if mbps is None else float(mbps), "Mbit/s", require, evidence)


def burn_in(result: Result, seconds: int) -> Outcome:
    """Return how a machine bore full load; the figure is what all its cores did in a second."""
    rate = re.search(r"metrc: \[\d+\] cpu +\d+ +([\d.]+) +[\d.]+ +[\d.]+ +([\d.]+)", result.stdout + result.stderr)
    held = float(rate[1]) if rate else 0.0
    sound = result.exit_code == 0 and held >= 0.9 * seconds
    evidence = {"seconds": held} if sound else {"seconds": held, "exit": result.exit_code, "said": _last(result)}
    figure = float(rate[2]) if rate else None
    return Outcome("burn-in", sound, figure, "bogo-ops/s", f"{seconds} s without an error", evidence)


def ecc(text: str) -> Outcome | None:
    """Return what the memory controllers counted since the machine was booted; None: they count nothing (EDAC)."""
    counts = re.findall(r"/(ce|ue)_count:(\d+)", text)
    if not counts:
        return None
    corrected, lost = (sum(int(n) for kind, n in counts if kind == one) for one in ("ce", "ue"))
    evidence = {"corrected": corrected, "uncorrected": lost}
    return Outcome("memory-ecc", lost == 0, float(corrected), "errors corrected", "none uncorrected", evidence)
