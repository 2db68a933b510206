"""The process behind `rackflow simulate`: a question in JSON, an answer or an error in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from control.store import Store
from daemon.simulate import main
from tests.rig import Rig

ASKED: dict[str, Any] = {
    "hosts": ["1x8c/8GiB"], "policy": "", "history": "", "seed": 0, "spare": 0, "until_rejection": False,
    "find_min_hosts": False, "compare": False, "fit": "", "add": [], "lose": [], "drain": [], "networks": [],
    "quiet": True, "recorded": False,
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> str:
    made = tmp_path / "arrivals.csv"
    made.write_text("name,arrival_s,lifetime_s,cpu,memory_mib\na,0,100,4,4096\nb,5,,8,4096\n")
    return str(made)


def ask(capsys: pytest.CaptureFixture[str], **asked: Any) -> tuple[int, dict[str, Any]]:
    code = main([json.dumps({**ASKED, **asked})])
    return code, json.loads(capsys.readouterr().out)


def test_hosts_come_go_and_are_drained(capsys: pytest.CaptureFixture[str], file: str) -> None:
    code, told = ask(capsys, arrivals=file, add=["1x8c/8GiB@2"], drain=["1@50"], lose=["1@60"], fit="0.5,64")
    (found,) = told["answers"]
    assert (code, found["placed"], found["hosts"]) == (0, 2, 2)
    assert (found["stuck"], found["stranded"], found["fits"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"arrivals": "none.csv"}, "none.csv cannot be read"),
        ({"hosts": ["many"]}, "'many' is no size of hosts"),
        ({"policy": "x"}, "there is no policy 'x'"),
        ({"add": ["1x8c/8GiB"]}, "does not say when"),
        ({"lose": ["@3"]}, "does not say how many hosts and when"),
        ({"fit": "lots"}, "--fit 'lots' is no size"),
        ({"spare": 1}, "no host is there for arrivals"),
    ],
)
def test_errors_say_what_to_do(
    capsys: pytest.CaptureFixture[str], file: str, asked: dict[str, Any], words: str
) -> None:
    code, told = ask(capsys, **{"arrivals": file, **asked})
    assert code == 2
    assert words in told["error"]["message"]
    assert told["error"]["fix"]


def test_what_was_recorded_is_decided_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'record.db'}"
    monkeypatch.setenv("RACKFLOW_DATABASE_URL", url)
    monkeypatch.setenv("RACKFLOW_CONFIG", str(tmp_path / "none.toml"))
    store = Store(url)
    store.migrate()
    cloud = Rig(store.write_now)
    cloud.network()
    cloud.image()
    cloud.host("h1")
    cloud.host("h2")
    for n in range(3):
        cloud.deploy(f"i{n}")
    store.close_now()
    code, told = ask(capsys, recorded=True)
    assert (code, told["replay"]["same_rounds"], told["replay"]["rounds"]) == (0, 3, 3)
    code, told = ask(capsys, recorded=True, policy="spread")
    assert [one["name"] for one in told["replay"]["differences"]] == ["i1", "i2"]
    assert ask(capsys, recorded=True, policy="x")[0] == 2
