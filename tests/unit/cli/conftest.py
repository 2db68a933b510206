"""The command line run in this process against a small real HTTP server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from rackflow_cli.main import run
from tests.unit.cli.cli_front_end import FrontEnd, serve


@dataclass(frozen=True)
class Result:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def front_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[FrontEnd]:
    made = FrontEnd()
    server = serve(made)
    for name in ("NO_COLOR", "RACKFLOW_DEBUG", "RACKFLOW_TOKEN_FILE", "RACKFLOW_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RACKFLOW_URL", made.url)
    monkeypatch.setenv("RACKFLOW_TOKEN", "secret")
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setattr("rackflow_cli.operations._FIRST_LOOK_S", 0.01)

    def call(*arguments: Any) -> Result:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Result(code, said.out, said.err)

    return call
