"""rackflow driver: the process it starts, its tables, JSON, exit codes and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Cli


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RACKFLOW_DATA_DIR", str(tmp_path))
    return tmp_path


def test_drivers_are_listed_with_what_they_were_tried_on(cli: Cli) -> None:
    said = cli("driver", "list", "-o", "json")
    assert said.code == 0
    found = {one["name"]: one for one in json.loads(said.out)}
    assert {"kvm", "lxd", "esxi", "fake"} <= set(found)
    assert found["fake"]["tried_on"] == "the simulation"
    assert found["fake"]["failed"] == 0
    assert "the simulation" in cli("driver", "show", "fake").out
    said = cli("driver", "show", "nothing")
    assert (said.code, "there is no driver nothing" in said.err) == (3, True)


def test_a_part_of_the_kit_is_run_and_not_kept(cli: Cli, data: Path) -> None:
    said = cli("driver", "test", "fake", "--family", "network", "--case", "a nic", "-o", "wide")
    assert said.code == 0
    assert "a nic" in said.out
    assert "fake on the simulation: 1 proven" in said.err
    assert not (data / "conformance").exists()
    told = json.loads(cli("driver", "test", "fake", "--case", "a nic", "-o", "json").out)
    assert [row["verdict"] for row in told["rows"]] == ["proven"]


def test_what_is_wrong_with_the_question_is_said(cli: Cli) -> None:
    for words, code, text in (
        (("kvm",), 2, "which host"), (("fake", "--family", "nothing"), 2, "there is no family"),
        (("fake", "--case", "no such"), 2, "no case is named"), (("nothing", "--host", "h1"), 2, "no driver 'nothing'"),
    ):  # fmt: skip
        said = cli("driver", "test", *words)
        assert (said.code, text in said.err) == (code, True), said.err


def test_the_page_is_printed(cli: Cli) -> None:
    assert cli("driver", "page").out.startswith("| | ")
