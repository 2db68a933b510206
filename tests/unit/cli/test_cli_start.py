"""Starting has to be cheap: what may be loaded, and how much CPU it costs."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import pytest

from tests.unit.cli.cli_front_end import INSTANCE, FrontEnd

LIMIT = 8  # times the CPU of starting Python, which is 25 ms where `instance list` takes 150
ROOMS = {"core", "blueprints", "drivers", "control", "analytics", "tasks", "flows", "api", "daemon", "lab"}
HEAVY = {"pydantic", "httpx", "prefect", "sqlalchemy", "fastapi", "numpy", "asyncio", "yaml", "rich"}


def loaded(*arguments: str) -> set[str]:
    """Return the top-level modules that a command loads."""
    code = (
        "import sys; from rackflow_cli.main import run; code = run(sys.argv[1:]); "
        "print(code, *sorted({n.split('.')[0] for n in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    exit_code, *modules = done.stderr.split("\n")[-2].split()
    assert exit_code == "0", done.stderr
    return set(modules)


def cpu_s(*argv: str) -> float:
    """Return the CPU time of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cpu_ratio(program: Sequence[str], beside: Sequence[str]) -> float:
    """Return the median, over pairs of runs right after each other, of one's CPU time to the other's.

    What disturbs a pair makes both dearer; measured apart, they met a busy machine at different times.
    """
    return median(cpu_s(*program) / cpu_s(*beside) for _ in range(11))


@pytest.fixture
def listed(front_end: FrontEnd) -> FrontEnd:
    front_end.on("GET", "instances", 200, [INSTANCE])
    return front_end


@pytest.mark.parametrize("arguments", [("--help",), ("instance", "--help"), ("instance", "list", "-o", "json")])
def test_no_room_and_nothing_heavy_is_loaded(listed: FrontEnd, arguments: tuple[str, ...]) -> None:
    assert loaded(*arguments) & (ROOMS | HEAVY) == set()


def test_a_table_loads_rich_and_nothing_else_heavy(listed: FrontEnd) -> None:
    assert loaded("instance", "list") & (ROOMS | HEAVY) == {"rich"}


def test_yaml_is_loaded_to_write_it(listed: FrontEnd) -> None:
    assert loaded("instance", "list", "-o", "yaml") & (ROOMS | HEAVY) == {"yaml"}


def test_help_loads_no_command() -> None:
    code = (
        "import sys; from rackflow_cli.main import run; run(['--help']); "
        "print([n for n in sys.modules if '.commands.' in n])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("arguments", [("--help",), ("instance", "list"), ("instance", "list", "-o", "json")])
def test_starting_costs_little(listed: FrontEnd, arguments: tuple[str, ...]) -> None:
    """Judge beside Python's own start, which a busy machine makes slower just as much."""
    program = str(Path(sys.executable).with_name("rackflow"))
    assert cpu_ratio([program, *arguments], [sys.executable, "-c", "pass"]) < LIMIT


def test_a_folder_named_like_a_room_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints" / "__init__.py").write_text("raise SystemExit('wrong one')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rackflow_cli.main", "schema", "instance"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    assert json.loads(done.stdout)["title"] == "InstanceSpec"
