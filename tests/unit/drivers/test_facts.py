"""Golden facts: what the script printed on real machines (numbers and names changed), and what is made of it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from core.errors import HostFault
from drivers.facts import gather_again, gather_facts, parse_facts
from tests.unit.drivers.scripted import Scripted

GOLDEN = Path(__file__).parent / "golden" / "facts"
CASES = sorted(path.stem for path in GOLDEN.glob("*.txt"))


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    file, found = GOLDEN / f"{name}.json", asdict(parse_facts((GOLDEN / f"{name}.txt").read_text()))
    if os.environ.get("RACKFLOW_GOLDEN") == "write":
        file.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(file.read_text())


def test_there_are_cases() -> None:
    assert {"kvm-host", "plain-vm"} <= set(CASES)


def test_the_address_we_came_by_stands_in_when_sshd_does_not_tell() -> None:
    text = (GOLDEN / "kvm-host.txt").read_text()
    silent = "".join(line for line in text.splitlines(True) if " 192.0.2.11 22" not in line)
    assert parse_facts(silent).management_nic == ""
    assert parse_facts(silent, "192.0.2.11").management_nic == "mgmt0"


@pytest.mark.parametrize("text", ["", "sh: not found\n", "==> hostname\nx\n"])
async def test_something_that_is_no_linux_host(text: str) -> None:
    with pytest.raises(HostFault, match="odd does not look like a Linux host"):
        await gather_facts(Scripted(lambda _: (127, text, "")))


@pytest.mark.parametrize(
    ("known", "anyway", "asked"),
    [("b1", False, ["cat"]), ("b0", False, ["cat", "sh"]), ("b1", True, ["sh"]), ("", False, []), ("", True, ["sh"])],
)
async def test_a_machine_is_looked_at_again_when_it_was_booted(known: str, anyway: bool, asked: list[str]) -> None:
    text = (GOLDEN / "kvm-host.txt").read_text() + "==> boot_id\nb1\n"
    said: list[str] = []

    def answer(argv: Sequence[str]) -> tuple[int, str, str]:
        said.append(argv[0])
        return 0, "b1\n" if argv[0] == "cat" else text, ""

    found = await gather_again(Scripted(answer), known, anyway=anyway)
    assert said == asked
    assert (found.boot_id if found else None) == ("b1" if "sh" in asked else None)
