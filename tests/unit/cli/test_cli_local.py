"""Local verbs start a room as a process; completion; the documentation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rackflow_cli.docs
from rackflow_cli.commands.instance_verbs import WORDS
from rackflow_cli.tree import TREE, leaves
from tests.unit.cli.cli_front_end import INSTANCE, FrontEnd
from tests.unit.cli.conftest import Cli

DOCS = Path(__file__).parents[3] / "docs" / "cli.md"


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Note what the process would become, and end there."""
    calls: list[list[str]] = []

    def execv(program: str, argv: list[str]) -> None:
        assert argv[0] == program == sys.executable
        calls.append(argv[1:])
        raise SystemExit(0)

    monkeypatch.setattr("os.execv", execv)
    return calls


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["up", "--detach"], ["daemon", "up", "--detach"]),
        (["down"], ["daemon", "down"]),
        (["status", "-o", "json"], ["daemon", "status", "-o", "json"]),
        (["logs", "api", "-f"], ["daemon", "logs", "api", "-f"]),
        (["lab", "up", "kvm:2", "lxd:2"], ["lab", "up", "kvm:2", "lxd:2"]),
        (["lab", "--help"], ["lab", "--help"]),
        (["up", "-h"], ["daemon", "up", "-h"]),
        (["schema", "instance"], ["blueprints", "schema", "instance"]),
        (["schema"], ["blueprints", "schema", "blueprint"]),
    ],
)
def test_local_verbs_become_the_rooms_process(
    cli: Cli, became: list[list[str]], arguments: list[str], wanted: list[str]
) -> None:
    assert cli(*arguments).code == 0
    assert became == [["-P", "-m", *wanted]]


def test_the_exit_code_is_the_rooms(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rackflow_cli.main", "schema", "zebra"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: there is no schema 'zebra'")


def complete(words: str, front_end_url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("RACKFLOW_URL", front_end_url)
    monkeypatch.setenv("_RACKFLOW_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    done = subprocess.run([sys.executable, "-m", "rackflow_cli.main"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_completion_of_words(front_end: FrontEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete("rackflow inst", front_end.url, monkeypatch) == ["instance"]
    assert complete("rackflow instance st", front_end.url, monkeypatch) == ["start", "stop"]
    assert complete("rackflow instance list --out", front_end.url, monkeypatch) == ["--output"]


def test_completion_of_names(front_end: FrontEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    front_end.on("GET", "instances", 200, [INSTANCE, {**INSTANCE, "name": "db"}])
    assert complete("rackflow instance show ", front_end.url, monkeypatch) == ["web", "db"]
    assert complete("rackflow instance delete db w", front_end.url, monkeypatch) == ["web"]
    assert front_end.last("GET", "instances").query == {"limit": "200"}


def test_completion_without_a_front_end_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete("rackflow instance show ", "http://127.0.0.1:9", monkeypatch) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(cli: Cli, shell: str) -> None:
    said = cli("completion", shell)
    assert said.code == 0
    assert "_RACKFLOW_COMPLETE=complete_" + shell in said.out


def test_completion_script_is_bash(cli: Cli) -> None:
    script = cli("completion", "bash").out + "\ncomplete -p rackflow"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "_rackflow_completion rackflow" in done.stdout


def test_every_command_has_help_and_the_common_options() -> None:
    for name, command in leaves().items():
        assert command.help, name
        flags = {flag for param in command.params for flag in param.opts}
        passed_on = TREE[name.split()[0]].module == "local" and name not in ("schema", "completion")
        assert passed_on or {"-q", "--no-color"} <= flags, name


def test_reading_verbs_take_an_output_and_changing_ones_may_be_awaited() -> None:
    flags: dict[str, set[Any]] = {n: {f for p in c.params for f in p.opts} for n, c in leaves().items()}
    verbs = ("list", "show", "plan", "explain", "history", "capacity", "query", "drift")
    reading = {n for n in flags if n.split()[-1] in verbs}
    assert len(reading) > 18
    assert [n for n in reading if "-o" not in flags[n]] == []
    made = {f"instance {word.word}" for word in WORDS}
    changing = made | {"instance create", "instance clone", "image import", "image stage", "image delete",
                       "host enroll", "host retire", "host evacuate", "host fence", "host adopt", "disk attach",
                       "disk detach", "disk grow", "nic attach", "nic detach", "snapshot create", "snapshot revert",
                       "snapshot delete", "backup create", "backup restore", "operation retry", "operation abandon",
                       "apply", "delete", "reconcile"}  # fmt: skip
    assert [n for n in changing if not {"--wait", "--timeout", "-o"} <= flags[n]] == []


def test_the_documentation_is_what_the_commands_say() -> None:
    done = subprocess.run([sys.executable, "-m", "rackflow_cli.docs"], capture_output=True, text=True, check=True)
    assert DOCS.read_text() == done.stdout, f"run: python -m rackflow_cli.docs > {DOCS}"
    assert rackflow_cli.docs.INTRO in done.stdout
