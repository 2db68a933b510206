"""What is run to try hardware, and what tools say of it; their words as they were printed (or from their manuals)."""

from __future__ import annotations

import json

import pytest

from drivers import hardware
from drivers import hardware_output as output
from drivers.hardware import Machine, Want
from drivers.hardware_output import Outcome
from drivers.transport.base import Result

LINK = """Settings for eno1:
\tSupported ports: [ TP ]
\tSpeed: 10000Mb/s
\tDuplex: Full
\tAuto-negotiation: on
\tLink detected: yes
"""
BURNT = """stress-ng: info:  [29919] dispatching hogs: 2 cpu, 1 vm
stress-ng: metrc: [29919] stressor       bogo ops real time  usr time  sys time   bogo ops/s     bogo ops/s
stress-ng: metrc: [29919] cpu                 863      2.01      0.50      0.01       428.46        1690.41
stress-ng: metrc: [29919] vm                 9472      2.04      0.13      0.12      4653.33       38109.95
"""
NVME = {
    "smartctl": {"exit_status": 0}, "model_name": "X", "serial_number": "S1", "smart_status": {"passed": True},
    "temperature": {"current": 38}, "power_on_time": {"hours": 9000},
    "nvme_smart_health_information_log": {"percentage_used": 7},
}  # fmt: skip
ATA = {
    "smartctl": {"exit_status": 0}, "smart_status": {"passed": False},
    "ata_smart_attributes": {"table": [{"id": 5, "raw": {"value": 312}}, {"id": 9, "raw": {"value": 1}}]},
}  # fmt: skip


def said(stdout: str = "", code: int = 0, stderr: str = "") -> Result:
    return Result((), code, stdout, stderr)


def test_what_is_run_on_a_machine() -> None:
    machine = Machine(frozenset(hardware.TOOLS), ("/dev/sda",), {"eno1": (True, 0)})
    found = {one.name: one.argv for one in hardware.tries(machine, Want(burn_in_s=60, memory_mib=128))}
    assert list(found) == ["memory", "disk-health /dev/sda", "disk-read /dev/sda", "network eno1", "burn-in"]
    assert found["memory"] == ("memtester", "128M", "1")
    assert "--readonly" in found["disk-read /dev/sda"]
    assert found["burn-in"][-3:] == ("--timeout", "60s", "--metrics-brief")


def test_only_what_is_asked_for_is_tried() -> None:
    machine = Machine(frozenset(), ("/dev/sda",), {"eno1": (True, 0)})
    assert [one.name for one in hardware.tries(machine, Want(("network",)))] == ["network eno1"]
    assert "burn-in" not in [one.name for one in hardware.tries(machine, Want())]


def test_all_of_it_has_a_deadline_beyond_its_parts() -> None:
    machine = Machine(frozenset(), tuple(f"/dev/sd{n}" for n in "abc"), {"eno1": (True, 0)})
    want = Want(burn_in_s=3600, seconds=30)
    assert hardware.seconds(want, 3) > sum(one.timeout_s for one in hardware.tries(machine, want))


@pytest.mark.parametrize(("code", "passed"), [(0, True), (1, None), (2, False), (4, False), (124, False)])
def test_memory(code: int, passed: bool | None) -> None:
    found = output.memory(said("  Stuck Address: \b\b\bok", code), 64)
    assert (found.passed, "why" in found.evidence) == (passed, code == 1)


@pytest.mark.parametrize(("answer", "passed", "figure", "unit"), [
    (NVME, True, 7.0, "% worn"), (ATA, False, 312.0, "sectors reallocated"),
    ({**NVME, "nvme_smart_health_information_log": {"percentage_used": 104}}, False, 104.0, "% worn"),
    ({"smartctl": {"messages": [{"string": "Unable to detect device type"}]}}, None, None, ""),
])  # fmt: skip
def test_health_of_disks(answer: dict[str, object], passed: bool | None, figure: float | None, unit: str) -> None:
    found = output.disk_health(said(json.dumps(answer)), "/dev/sda")
    assert (found.passed, found.figure, found.unit) == (passed, figure, unit)


@pytest.mark.parametrize(("text", "crc", "least", "passed"), [
    (LINK, 0, 0, True), (LINK, 0, 10_000, True), (LINK, 0, 25_000, False), (LINK, 3, 0, False),
    (LINK.replace("Full", "Half"), 0, 0, False), (LINK.replace("yes", "no"), 0, 0, None),
])  # fmt: skip
def test_links(text: str, crc: int, least: int, passed: bool | None) -> None:
    assert output.link(said(text), "eno1", crc, least).passed is passed


def test_a_burn_in_that_ends_early_has_failed() -> None:
    assert output.burn_in(said(stderr=BURNT), 2) == Outcome(
        "burn-in", True, 428.46, "bogo-ops/s", "2 s without an error", {"seconds": 2.01}
    )
    assert output.burn_in(said(stderr=BURNT), 60).passed is False
    assert output.burn_in(said(stderr=BURNT, code=2), 2).passed is False
    assert output.burn_in(said("killed", 137), 2).passed is False


def test_errors_that_memory_corrected_are_counted() -> None:
    text = "/sys/devices/system/edac/mc/mc0/ce_count:3\n/sys/devices/system/edac/mc/mc0/ue_count:0\n"
    found = output.ecc(text)
    assert found is not None
    assert (found.passed, found.figure) == (True, 3.0)
    lost = output.ecc(text.replace("ue_count:0", "ue_count:1"))
    assert lost is not None
    assert lost.passed is False
    assert output.ecc("") is None
