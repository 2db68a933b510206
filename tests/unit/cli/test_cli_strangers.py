"""What somebody meets who gets the surroundings wrong (address, token, full disk): words and a code, no defect."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rackflow_cli.errors import evidence_lines
from tests.unit.cli.cli_front_end import INSTANCE, FrontEnd
from tests.unit.cli.conftest import Cli


@pytest.mark.parametrize("url", ["zebra", "http://127.0.0.1:port", "http://127.0.0.1:99999", "ftp://127.0.0.1"])
def test_an_address_that_is_none(cli: Cli, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("RACKFLOW_URL", url)
    said = cli("host", "list")
    assert said.code == 2
    assert "is not an address" in said.err


@pytest.mark.parametrize("status", [404, 405])
def test_something_else_answers_at_the_address(cli: Cli, front_end: FrontEnd, status: int) -> None:
    front_end.on("GET", "hosts", status, {"detail": "Not Found"})
    said = cli("host", "list")
    assert said.code == 8
    assert "does not speak rackflow's API" in said.err


@pytest.mark.usefixtures("front_end")
def test_a_token_that_no_header_can_carry(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\x00\xd0\xff")
    monkeypatch.delenv("RACKFLOW_TOKEN", raising=False)
    monkeypatch.setenv("RACKFLOW_TOKEN_FILE", str(tmp_path / "token"))
    assert cli("host", "list").code == 4
    monkeypatch.setenv("RACKFLOW_TOKEN", "√")
    said = cli("host", "list")
    assert said.code == 4
    assert "RACKFLOW_TOKEN is no token" in said.err


@pytest.mark.parametrize("words", [["--version"], ["query", "SELECT 1", "-o", "json"]])
def test_a_full_disk_behind_the_output(front_end: FrontEnd, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setenv("RACKFLOW_URL", front_end.url)
    front_end.on("POST", "query", 200, {"columns": ["a"], "rows": [[1]] * 5000, "truncated": False})
    with Path("/dev/full").open("w") as full:
        argv = [sys.executable, "-m", "rackflow_cli.main", *words]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the output could not be written: No space left on device\n")


def test_evidence_does_not_say_the_message_again() -> None:
    said = "there is no host h1: it answered with 3 words"
    seen = {"host": "h1", "seen": "3", "errors": [{"field": "", "message": "it answered with 3 words"}], "more": "h12"}
    assert evidence_lines(seen, said) == ["seen: 3", "more: h12"]


def test_operations_are_named_by_their_ids(cli: Cli, front_end: FrontEnd) -> None:
    front_end.on("GET", "operations", 200, [{"id": "06h1", "name": "web", "verb": "deploy", "state": "done"}])
    assert cli("operation", "list", "-o", "name").out == "06h1\n"


def test_a_schedule_needs_a_time(cli: Cli, front_end: FrontEnd) -> None:
    front_end.on("GET", "instances/web", 200, INSTANCE)
    said = cli("schedule", "add", "web", "reboot")
    assert said.code == 2
    assert "--every" in said.err


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_while_it_is_loaded_says_nothing(tmp_path: Path, ignored: bool) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        f"signal.signal(signal.SIGINT, signal.{'SIG_IGN' if ignored else 'default_int_handler'})\n"
        "class Late:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'rackflow_cli.main':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Late())\n"
    )
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    argv = [sys.executable, "-m", "rackflow_cli.entry", "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=where)
    assert (done.returncode, done.stderr) == (0 if ignored else -signal.SIGINT, "")
