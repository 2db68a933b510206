"""history backtest, regressions, export, rebuild; capacity --forecast; top."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.unit.cli.cli_front_end import AT, FrontEnd, error
from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_cli_terminal import on_a_terminal

JUDGED = [
    {"prediction": "steps", "tested_at": AT, "cases": 2916, "error": 0.2384, "baseline_error": 0.6125,
     "unit": "mean |ln ratio|", "baseline": "the median of the verb's step", "detail": "within_p95_ratio 0.947",
     "beats": True},
    {"prediction": "demand", "tested_at": AT, "cases": 0, "error": None, "baseline_error": None, "unit": "share",
     "baseline": "stays as it is", "detail": "", "beats": False},
]  # fmt: skip
SLOW = {
    "verb": "deploy", "step": "start", "host": "h3", "driver": "kvm", "since_at": AT, "ratio": 3.07,
    "before_p50_s": 2.0, "after_p50_s": 6.2, "runs_before": 40, "runs_after": 12, "others_ratio": 1.01,
}  # fmt: skip
OUTLOOK: dict[str, Any] = {
    "cluster": "default", "resource": "memory_mib", "used": 1024.0, "total": 4096.0, "in_30_days": 2048.0,
    "in_30_days_low": 1536.0, "in_30_days_high": 2560.0, "runs_out_at": "2999-01-01T00:00:00.000Z",
    "earliest_at": "2998-01-01T00:00:00.000Z", "latest_at": None, "proven": True,
}  # fmt: skip
HOST = {
    "host": "h1", "state": "ready", "cluster": "default", "cpus": 8.0, "cpu_reserved": 2.5, "memory_mib": 16384,
    "memory_reserved_mib": 1024, "instances": 3, "cpu_used": 2.0, "cpu_used_ratio": 0.25, "memory_used_mib": 4096,
    "disk_total_mib": None, "disk_free_mib": None, "sampled_at": AT,
}  # fmt: skip


def used(name: str, cpu: float | None, memory_mib: int) -> dict[str, Any]:
    return {"instance": name, "owner": "ann", "host": "h1", "cpus": 2.0, "cpu_used": cpu, "memory_mib": 512,
            "memory_used_mib": memory_mib, "sampled_at": AT}  # fmt: skip


USAGE = {"hosts": [HOST], "instances": [used("calm", 0.1, 256), used("busy", 1.5, 128), used("new", None, 1)]}


def test_backtest(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("POST", "history/backtest", 200, JUDGED)
    lines = [line.split() for line in cli("history", "backtest").out.splitlines()]
    assert lines[1][:5] == ["steps", "2916", "0.2384", "0.6125", "yes"]
    assert lines[2][:5] == ["demand", "0", "-", "-", "no"]
    assert json.loads(cli("history", "backtest", "-o", "json").out) == JUDGED


def test_regressions(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "history/regressions", 200, [SLOW])
    said = cli("history", "regressions").out.splitlines()[1].split()
    assert said == ["start", "deploy", "h3", "3.1x", AT, "2.0s", "6.2s", "1.0x"]
    assert cli("history", "regressions", "-o", "name").out == "deploy/start@h3\n"
    front_end.on("GET", "history/regressions", 200, [])
    assert cli("history", "regressions").err == "no regressions\n"


def test_a_word_that_is_no_verb_is_an_instance(front_end: FrontEnd, cli: Cli) -> None:
    told = {"instance_id": "i", "instance": "export", "owner": "a", "host": None, "state": None, "timeline": []}
    for name in ("web", "export"):
        front_end.on("GET", f"instances/{name}/history", 200, told)
    assert cli("history", "web", "-o", "json").code == 0
    assert cli("history", "-o", "json", "web").code == 0
    assert cli("history", "show", "export", "-o", "json").code == 0
    assert "backtest" in cli("history", "--help").out


def test_export_writes_a_file_for_each_table(front_end: FrontEnd, cli: Cli, tmp_path: Path) -> None:
    tables = ("events", "steps", "usage", "usage_5min", "usage_hour", "usage_day", "allocation")
    for table in tables:
        front_end.routes["GET", f"history/tables/{table}"] = (200, f"PAR1 {table}".encode() * 300_000)
    assert cli("history", "export", tmp_path / "out").code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{table}.parquet" for table in tables}
    assert (tmp_path / "out" / "usage.parquet").read_bytes() == b"PAR1 usage" * 300_000
    assert front_end.last("GET", "history/tables/usage").headers["authorization"] == "Bearer secret"
    front_end.on("GET", "history/tables/events", 403, error("denied", "not you"))
    assert cli("history", "export", tmp_path).code == 4


def test_rebuild(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("POST", "history/rebuild", 200, {"events": 12})
    assert cli("history", "rebuild").err == "12 events on their way into the history\n"


def test_forecast(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "capacity/forecast", 200, [OUTLOOK])
    said = cli("capacity", "--forecast")
    row = said.out.splitlines()[1]
    assert " ".join(row.split()).startswith("default memory 1 GiB 4 GiB 2 GiB 1.5 GiB to 2.5 GiB in ")
    assert row.split()[-1] == "-"
    assert said.err == ""
    assert json.loads(cli("capacity", "--forecast", "-o", "json").out) == [OUTLOOK]


def test_forecasts_that_are_not_proven_say_how_much_history_there_is(front_end: FrontEnd, cli: Cli) -> None:
    def said(rows: list[dict[str, Any]], days: float | None) -> str:
        since = None if days is None else (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
        front_end.on("GET", "capacity/forecast", 200, rows)
        front_end.on("GET", "status", 200, {"history": {"sampled_since": since}})
        told = cli("capacity", "--forecast").err
        assert since is None or days == 20 or f"since {since}" in told
        return told

    rows = [{**OUTLOOK, "proven": False}]
    assert "history backtest" in said(rows, 20)
    assert "a trend from 5 days" in said(rows, 3)
    assert "judged from 14" in said([], 0)
    assert "nothing was sampled so far" in said([], None)


def test_top_shows_those_that_use_most_first(front_end: FrontEnd, cli: Cli) -> None:
    front_end.on("GET", "usage", 200, USAGE)
    lines = [line.split() for line in cli("top").out.splitlines()]
    assert lines[1][:4] == ["h1", "2.00", "8", "25%"]
    names = [line[0] for line in lines[4:]]
    assert names == ["busy", "calm", "new"]
    assert lines[4][:5] == ["busy", "h1", "1.50", "2", "75%"]
    assert [line.split()[0] for line in cli("top", "--by", "memory", "-n", 2).out.splitlines()[4:]] == ["calm", "busy"]
    assert json.loads(cli("top", "-o", "json").out) == USAGE
    assert cli("top", "-o", "name", "--by", "name").out.split() == ["busy", "calm", "new"]


def test_top_goes_on_looking_on_a_terminal(front_end: FrontEnd) -> None:
    """It looks again and draws what it finds then; the third look says what would be Ctrl-C."""
    looks: list[int] = []

    def answer(_: Any) -> tuple[int, Any]:
        looks.append(1)
        row = used(f"look{len(looks)}", 0.5, 10)
        return (200, {**USAGE, "instances": [row]}) if len(looks) < 3 else (503, error("unreachable", "gone"))

    front_end.routes["GET", "usage"] = answer
    code, said = on_a_terminal("top", "--every", "0.5")
    assert code != 0
    assert said.index("look1") < said.index("look2")
    assert "gone" in said
