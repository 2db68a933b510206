"""On a terminal: colours and live progress; with NO_COLOR, --no-color and in a pipe: none."""

from __future__ import annotations

import os
import pty
import re
import select
import struct
import sys
import termios
import time
from fcntl import ioctl

import pytest

from tests.unit.cli.cli_front_end import AT, INSTANCE, STEPS, FrontEnd, operation

GREEN = "\x1b[32m"


def on_a_terminal(*arguments: str, columns: int = 100, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command on a pseudo terminal and return its exit code and all that it wrote."""
    pid, master = pty.fork()
    if pid == 0:
        clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
        argv = [sys.executable, "-m", "rackflow_cli.main", *arguments]
        os.execve(sys.executable, argv, {**clean, "TERM": "xterm", **(env or {})})
    ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    written, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.2)[0]:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            written += chunk
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), written.decode()


@pytest.fixture
def web(front_end: FrontEnd) -> FrontEnd:
    running = [{**STEPS[0], "state": "running", "finished_at": None, "started_at": AT}]
    front_end.deploys(*[operation("running", steps=running)] * 5, operation("done"))
    front_end.on("GET", "instances/web", 200, INSTANCE)
    front_end.on("GET", "instances", 200, [INSTANCE])
    return front_end


def test_progress_is_live_and_coloured(web: FrontEnd) -> None:
    code, said = on_a_terminal("instance", "create", "web", "--image", "tiny")
    assert code == 0
    assert re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏].*deploy web.*h1.*image", said)
    assert f"{GREEN}✓" in said
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")  # the cursor is shown again
    assert "198.18.17.100" in said.splitlines()[-1]


@pytest.mark.parametrize(("flags", "env"), [((), {"NO_COLOR": "1"}), (("--no-color",), {}), ((), {"TERM": "dumb"})])
def test_without_colours_there_is_no_escape_code(web: FrontEnd, flags: tuple[str, ...], env: dict[str, str]) -> None:
    code, said = on_a_terminal("instance", "create", "web", "--image", "tiny", *flags, env=env)
    assert code == 0
    assert "\x1b" not in said
    assert "deploy web: image on h1" in said


def test_states_are_coloured_in_tables(web: FrontEnd) -> None:
    assert f"{GREEN}running" in on_a_terminal("instance", "list")[1]
    assert "\x1b" not in on_a_terminal("instance", "list", env={"NO_COLOR": "1"})[1]


def test_a_narrow_terminal_cuts_and_a_pipe_does_not(web: FrontEnd) -> None:
    web.on("GET", "instances", 200, [{**INSTANCE, "name": "a-rather-long-name-of-an-instance"}])
    lines = on_a_terminal("instance", "list", columns=60, env={"NO_COLOR": "1"})[1].splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 60


def test_errors_are_red(web: FrontEnd) -> None:
    code, said = on_a_terminal("instance", "show", "none")
    assert code == 3
    assert said.startswith("\x1b[31merror:\x1b[0m there is no instances/none")


def test_what_takes_a_while_says_how_much_longer(front_end: FrontEnd) -> None:
    running = [{**STEPS[0], "state": "running", "finished_at": None, "started_at": AT}]
    front_end.deploys(*[operation("running", steps=running)] * 5, operation("done"))
    front_end.on("GET", "instances/web", 200, INSTANCE)
    told = [{"id": operation()["id"], "left_s": 187.0, "left_p95_s": 250.0}]
    front_end.on("GET", "operations/eta", 200, told)
    code, said = on_a_terminal("instance", "create", "web", "--image", "tiny")
    assert code == 0
    assert "about 3m07s left" in said
    assert front_end.last("GET", "operations/eta").query == {"ids": operation()["id"]}
