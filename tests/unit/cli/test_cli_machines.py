"""Machines on the command line: enrolled one by one, by files and by ranges; looked at, changed, retired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.cli_front_end import AT, FrontEnd, error, operation
from tests.unit.cli.conftest import Cli

INVENTORY: dict[str, Any] = {
    "cpu": {"model": "Xeon", "architecture": "x86_64", "count": 32, "flags": ["vmx"]}, "memory_mib": 65536, "numa": [],
    "disks": [{"name": "/dev/sda", "size_bytes": 480 * 10**9, "rotational": False, "model": "X"}],
    "nics": [{"name": "eno1", "mac": "52:54:00:00:00:01", "speed_mbps": 10000, "carrier": True, "address": "",
              "neighbour": {"chassis": "c", "port": "Eth1/7", "system": "leaf-1"}}],
    "pci": [], "manufacturer": "Dell", "product": "R650", "serial": "S1",
    "firmware": {"vendor": "Dell", "version": "1.2", "date": "", "boot_mode": "uefi"}, "bmc_version": "6.10",
}  # fmt: skip
CHECKS = [
    {"kind": "rule", "name": "memory", "passed": True, "figure": 65536, "require": "memory_mib >= 65536", "at": AT},
    {"kind": "hardware", "name": "disk-read /dev/sda", "passed": False, "figure": 12.5, "unit": "MB/s",
     "require": ">= 100 MB/s", "evidence": {}, "at": AT},
    {"kind": "hardware", "name": "burn-in", "passed": None, "figure": None, "unit": "",
     "require": "stress-ng installed", "evidence": {"why": "stress-ng is not installed there"}, "at": AT},
]  # fmt: skip
MACHINE = {
    "id": "06m1", "name": "m1", "state": "ready", "bmc": "https://10.0.0.1", "user": "admin", "system": "",
    "labels": {}, "classified": {"role": "kvm", "cluster": "east", "traits": []}, "checks": CHECKS, "error": None,
    "created_at": AT, "updated_at": AT,
}  # fmt: skip


def enrolled(front_end: FrontEnd, *ended: dict[str, Any], path: str = "machines") -> FrontEnd:
    front_end.on("POST", path, 202, {"request": "r", "operations": list(ended)})
    front_end.on("GET", "operations", 200, list(ended))
    front_end.on("GET", "machines", 200, [{**MACHINE, "name": op["name"]} for op in ended])
    return front_end


def done(name: str) -> dict[str, Any]:
    return operation("done", name, "enroll-machine", id=f"op-{name}")


def failed(name: str, message: str, fix: str = "look") -> dict[str, Any]:
    step = {"name": "power", "state": "failed", "host": "", "started_at": AT, "finished_at": AT}
    told = error("unreachable", message, fix=fix)
    return operation("failed", name, "enroll-machine", id=f"op-{name}", error=told, steps=[step])


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "password"
    path.write_text("hunter2\n")
    return str(path)


def test_one_machine(front_end: FrontEnd, cli: Cli, secret: str) -> None:
    enrolled(front_end, done("bmc-10-0-0-1"))
    said = cli(
        "enroll", "--bmc", "https://10.0.0.1", "--user", "admin", "--password-file", secret, "--no-verify-tls",
        "--ssh", "me@10.1.0.1:2222", "--check", "disk", "--burn-in", "30m", "-l", "rack=r1",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert front_end.last("POST", "machines").body == [{
        "name": "bmc-10-0-0-1", "bmc": "https://10.0.0.1", "user": "admin", "password": "hunter2", "verify_tls": False,
        "labels": {"rack": "r1"}, "ssh": {"user": "me", "address": "10.1.0.1", "port": 2222},
        "hardware": {"checks": ["disk", "burn-in"], "burn_in_s": 1800},
    }]  # fmt: skip
    assert "bmc-10-0-0-1" in said.out
    assert "hunter2" not in said.out + said.err


def test_an_empty_password_file_is_told(front_end: FrontEnd, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_text("\n")
    said = cli("enroll", "--bmc", "https://10.0.0.1", "--user", "admin", "--password-file", str(path))
    assert said.code == 2
    assert f"the password cannot be read from {path}: it is empty" in said.err


def test_a_file_takes_user_and_password_where_rows_have_none(
    front_end: FrontEnd, cli: Cli, secret: str, tmp_path: Path
) -> None:
    enrolled(front_end, done("a"), done("b"))
    path = tmp_path / "machines.csv"
    path.write_text("name,bmc,user,password_file\na,https://10.0.0.1,,\nb,https://10.0.0.2,root,/etc/b\n")
    assert cli("enroll", path, "--user", "admin", "--password-file", secret).code == 0
    assert front_end.last("POST", "machines").body == [
        {"name": "a", "bmc": "https://10.0.0.1", "user": "admin", "password": "hunter2"},
        {"name": "b", "bmc": "https://10.0.0.2", "user": "root", "password_file": "/etc/b"},
    ]


def test_a_file_with_mistakes_is_refused_row_by_row(front_end: FrontEnd, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "machines.csv"
    path.write_text("name,bmc\n" + "".join(f"M{n},https://10.0.0.{n}\n" for n in range(1, 31)))
    said = cli("enroll", path)
    assert said.code == 2
    assert "the list of machines is not valid: 30 errors" in said.err
    assert said.err.count(f"{path}:") == 30
    assert not front_end.asked


def test_failures_are_told_at_the_end_with_reason_and_next_step(front_end: FrontEnd, cli: Cli, tmp_path: Path) -> None:
    bad = [failed(name, f"the BMC of {name} did not answer in 60 s") for name in ("b", "c", "d", "e")]
    enrolled(front_end, done("a"), *bad)
    path = tmp_path / "machines.yaml"
    path.write_text("".join(f"- {{name: {n}, bmc: 'https://10.0.0.{i}'}}\n" for i, n in enumerate("abcde")))
    said = cli("enroll", path)
    assert said.code == 1
    end = said.err[said.err.index("error:") :]
    assert "4 of 5 machines failed:" in end
    assert "b (power), c (power), d (power), e (power): the BMC of it did not answer in 60 s" in end
    assert end.count("what to do: look") == 1
    assert said.out.count("https://10.0.0.1") == 5


FOUND = [
    {"address": "https://10.0.0.1", "vendor": "Dell", "product": "iDRAC", "version": "1.6", "uuid": "u",
     "machine": "m1"},
    {"address": "https://10.0.0.2", "vendor": "HPE", "product": "iLO", "version": "1.6", "uuid": "v", "machine": None},
]  # fmt: skip


def test_what_is_discovered_is_listed_and_enrolled_when_told_to(front_end: FrontEnd, cli: Cli, secret: str) -> None:
    enrolled(front_end, done("bmc-10-0-0-2"))
    front_end.on("POST", "machines/discover", 200, FOUND)
    dry = cli("enroll", "--discover", "10.0.0.0/24", "--user", "admin", "--password-file", secret)
    assert (dry.code, "iDRAC" in dry.out, "nothing is enrolled without --yes" in dry.err) == (0, True, True)
    assert [a.path for a in front_end.asked] == ["machines/discover"]
    assert front_end.last("POST", "machines/discover").body == {"range": "10.0.0.0/24", "scheme": "https"}
    assert cli("enroll", "--discover", "10.0.0.0/24", "--user", "admin", "--password-file", secret, "--yes").code == 0
    assert front_end.last("POST", "machines").body == [
        {"name": "bmc-10-0-0-2", "bmc": "https://10.0.0.2", "user": "admin", "password": "hunter2"}
    ]
    listed = cli("enroll", "--discover", "10.0.0.0/24", "--password-file", secret, "--dry-run", "-o", "json")
    assert json.loads(listed.out) == [{"name": "bmc-10-0-0-2", "bmc": "https://10.0.0.2"}]


@pytest.mark.parametrize("words", [
    ("enroll",), ("enroll", "x.yaml", "--bmc", "https://x"), ("enroll", "--bmc", "https://x", "--check", "nose"),
    ("enroll", "--bmc", "https://x", "--burn-in", "soon"), ("machine", "power", "up", "m1"),
    ("machine", "led", "blue", "m1"), ("machine", "rules", "m1"), ("enroll", "--bmc", "x", "--password-file", "/none"),
])  # fmt: skip
def test_what_makes_no_sense_is_told_before_anything_is_asked(
    front_end: FrontEnd, cli: Cli, words: tuple[str, ...]
) -> None:
    assert cli(*words).code == 2
    assert not front_end.asked


def test_lists_and_shows(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "machines", 200, [MACHINE])
    front_end.on("GET", "machines/m1", 200, {**MACHINE, "inventory": INVENTORY})
    assert "1 of 2" in cli("machine", "list").out
    shown = cli("machine", "show", "m1").out
    for words in ("32 × Xeon, virtualises", "/dev/sda 447.0 GiB SSD X", "at leaf-1 Eth1/7", "disk-read /dev/sda"):
        assert words in shown, shown
    for noun in ("machine", "host"):
        assert "Dell R650" in cli(noun, "inventory", "m1").out
        table = cli(noun, "checks", "m1").out
        assert [w in table for w in ("12.5", "not tried", "stress-ng is not installed there")] == [True] * 3, table
    assert json.loads(cli("machine", "inventory", "m1", "-o", "json").out)["serial"] == "S1"


def test_reinspect_shows_what_changed(front_end: FrontEnd, cli: Cli) -> None:
    enrolled(front_end, done("m1"), path="machines/look")
    change = {"what": "memory_mib", "kind": "less", "before": 65536, "after": 49152}
    seen = [{"at": AT, "inventory": {**INVENTORY, "memory_mib": 49152}, "changes": [change]}]
    front_end.on("GET", "machines/m1/inventory", 200, seen)
    said = cli("machine", "reinspect", "m1")
    assert said.code == 0, said.err
    assert "65536" in said.out
    assert "49152" in said.out
    assert "memory_mib less: 65536 → 49152" in cli("machine", "history", "m1").out


def test_hardware_is_tried_when_told_to(front_end: FrontEnd, cli: Cli) -> None:
    enrolled(front_end, done("m1"), path="machines/look")
    front_end.on("GET", "machines/m1", 200, {**MACHINE, "inventory": INVENTORY})
    assert cli("machine", "checks", "m1", "--run").code == 0
    assert front_end.last("POST", "machines/look").body == {"machines": ["m1"], "hardware": {}}
    assert cli("machine", "checks", "m1", "--check", "memory").code == 0
    assert front_end.last("POST", "machines/look").body["hardware"] == {"checks": ["memory"]}


@pytest.mark.parametrize(("words", "action"), [
    (("power", "on"), "power-on"), (("power", "off"), "power-off"), (("power", "cut"), "power-cut"),
    (("led", "on"), "led-on"), (("erase",), "erase"), (("rescue",), "rescue"),
])  # fmt: skip
def test_changes(front_end: FrontEnd, cli: Cli, words: tuple[str, ...], action: str) -> None:
    enrolled(front_end, operation("done", "m1", "change-machine"), path="machines/change")
    assert cli("machine", *words, "m1", *(["--yes"] if action in ("erase", "rescue") else [])).code == 0
    assert front_end.last("POST", "machines/change").body == {"machines": ["m1"], "action": action, "force": False}


def test_disks_are_wiped_only_when_somebody_has_said_so(cli: Cli) -> None:
    refused = cli("machine", "erase", "m1")
    assert (refused.code, "say --yes" in refused.err) == (2, True)



def test_rules_are_shown_tried_and_replaced(front_end: FrontEnd, cli: Cli, tmp_path: Path) -> None:
    rules = {
        "classify": [{"name": "big", "when": "cpus >= 32", "role": "kvm", "cluster": None, "rack": None,
                      "failure_domain": None, "traits": ["vt"]}],
        "checks": [{"name": "ram", "when": None, "require": "memory_mib >= 1", "figure": "memory_mib"}],
    }  # fmt: skip
    front_end.on("GET", "machines/rules", 200, rules)
    front_end.on("PUT", "machines/rules", 200, rules)
    tried = {"machine": "m1", "classified": {"role": "kvm", "rules": ["big"]}, "checks": CHECKS[:2], "passed": False}
    front_end.on("POST", "machines/rules/try", 200, [tried])
    assert "cpus >= 32" in cli("machine", "rules").out
    path = tmp_path / "rules.yaml"
    path.write_text(json.dumps(rules))
    assert "1 rule to classify, 1 check" in cli("host", "rules", "--set", path).err
    assert front_end.last("PUT", "machines/rules").body == rules
    assert "disk-read" in cli("machine", "rules", "--try", "--file", path, "m1").out
    assert front_end.last("POST", "machines/rules/try").body == {"rules": rules, "machines": ["m1"]}


def test_health(front_end: FrontEnd, cli: Cli) -> None:
    sensor = {"sensor": "Intake", "value": 31.0, "unit": "celsius", "health": "OK", "sampled_at": AT, "min_week": 20.0,
              "avg_week": 25.0, "max_week": 33.0, "samples": 9}  # fmt: skip
    entry = {"entry": "7", "logged_at": None, "severity": "Warning", "message": "fan 2 failed", "seen_at": AT}
    front_end.on("GET", "machines/m1/health", 200, {"sensors": [sensor], "log": [entry], "readings": []})
    out = cli("machine", "health", "m1").out
    assert [w in out for w in ("Intake", "33", "fan 2 failed")] == [True] * 3, out


def test_retire(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("DELETE", "machines/m1", 200, {**MACHINE, "state": "retired"})
    assert "machine m1 retired" in cli("machine", "retire", "m1").err
