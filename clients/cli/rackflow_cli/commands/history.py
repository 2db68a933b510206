"""rackflow history …: what happened to an instance, how good predictions are, what became slower, export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rackflow_cli import words
from rackflow_cli.columns import Column
from rackflow_cli.connection import part
from rackflow_cli.names import InstanceName
from rackflow_cli.options import Output
from rackflow_cli.output import Format, draw, dump, show_list
from rackflow_cli.session import session, talk
from rackflow_cli.tree import shorthand

app = shorthand("What happened to an instance (`history NAME` for short), and what the history teaches.", "show")

LONG_S = 300.0
TABLES = ("events", "steps", "usage", "usage_5min", "usage_hour", "usage_day", "allocation")


def _figure(value: Any) -> str:
    return words.NOTHING if value is None else f"{value:.4g}"


def _times(value: Any) -> str:
    return words.NOTHING if value is None else f"{value:.1f}x"


HISTORY = (
    Column("AT", "at"), Column("WHAT", "what"), Column("HOST", "host"),
    Column("TOOK", "duration_s", words.duration, right=True), Column("ATTEMPT", "attempt", wide=True),
    Column("OPERATION", "operation", wide=True), Column("REASON", "why", rare=True),
)  # fmt: skip
BACKTEST = (
    Column("PREDICTION", "prediction"), Column("CASES", "cases", words.number, right=True),
    Column("ERROR", "error", _figure, right=True), Column("BASELINE", "baseline_error", _figure, right=True),
    Column("USED", "beats"), Column("OF", "unit"), Column("THE BASELINE SAYS", "baseline"),
    Column("MORE", "detail", wide=True),
)  # fmt: skip
REGRESSIONS = (
    Column("STEP", "step"), Column("OF", "verb"), Column("HOST", "host"), Column("TAKES", "ratio", _times, right=True),
    Column("SINCE", "since_at"), Column("BEFORE", "before_p50_s", words.duration, right=True),
    Column("NOW", "after_p50_s", words.duration, right=True),
    Column("OTHER HOSTS", "others_ratio", _times, right=True),
    Column("RUNS BEFORE", "runs_before", words.number, right=True, wide=True),
    Column("RUNS SINCE", "runs_after", words.number, right=True, wide=True),
)  # fmt: skip


@app.command()
def show(name: InstanceName, output: Output = Format.TABLE) -> None:
    """Show what happened to an instance, also to one that is deleted: states, operations, steps with durations."""
    told = session.api().get(f"instances/{part(name)}/history")
    if output in (Format.TABLE, Format.WIDE):
        draw([_event(entry) for entry in told["timeline"]], HISTORY, wide=output is Format.WIDE)
    else:
        dump(told, output)


def _event(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Say in a few words what an entry of the history was."""
    kind = entry.get("kind")
    if kind == "lifecycle":
        what = " → ".join(str(entry[end]) for end in ("from", "to") if entry.get(end))
    elif kind == "step":
        what = f"  {entry.get('step')}: {entry.get('outcome')}"
    else:
        what = f"{entry.get('verb') or kind} {entry.get('to') or entry.get('outcome') or ''}".strip()
    return {**entry, "what": what, "why": entry.get("reason") or entry.get("error")}


@app.command()
def backtest(output: Output = Format.TABLE) -> None:
    """Judge predictions by the past: the error of each beside a naive baseline's.

    One that does not beat its baseline is not used by placement.
    """
    rows = session.api().post("history/backtest", {}, timeout_s=LONG_S)
    named = [{**row, "name": row["prediction"]} for row in rows] if output is Format.NAME else rows
    show_list(named, "prediction", output, columns=BACKTEST)


@app.command()
def regressions(output: Output = Format.TABLE) -> None:
    """Show which steps take longer on a host than they used to in the last 14 days, and since when."""
    rows = session.api().get("history/regressions")
    named = [{**row, "name": f"{row['verb']}/{row['step']}@{row['host']}"} for row in rows]
    show_list(named if output is Format.NAME else rows, "regression", output, columns=REGRESSIONS)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the files; made if need be.")],
) -> None:
    """Write all that is recorded as Parquet files, one for each table."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in TABLES:
        path = folder / f"{table}.parquet"
        with path.open("wb") as file:
            size = session.api().download(f"history/tables/{table}", file)
        talk(f"{path}: {words.size_bytes(size)}")


@app.command()
def rebuild() -> None:
    """Fill the history again from the events that the state database keeps for 30 days; none is there twice."""
    answer = session.api().post("history/rebuild", {})
    talk(f"{words.counted(answer['events'], 'event')} on their way into the history")
