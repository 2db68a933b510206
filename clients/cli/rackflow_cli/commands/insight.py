"""Looking at the cloud: why, how much is left, any question in SQL, drift."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rackflow_cli import words
from rackflow_cli.columns import Column
from rackflow_cli.connection import part
from rackflow_cli.names import InstanceName, SomeHosts
from rackflow_cli.operations import carry_out
from rackflow_cli.options import WAIT_TIMEOUT_S, Output, Timeout, Wait
from rackflow_cli.output import Format, draw, dump, show_list
from rackflow_cli.reasons import show_reasons
from rackflow_cli.session import session, talk
from rackflow_cli.tree import group

app = group("Looking at the cloud.")

CAPACITY = (
    Column("HOST", "host"), Column("STATE", "state", state=True), Column("CLUSTER", "cluster", wide=True),
    Column("CPUS", "cpus", words.number, right=True),
    Column("RESERVED", "cpu_reserved", words.number, right=True),
    Column("USED", "cpu_used", lambda v: words.NOTHING if v is None else f"{v:.2f}", right=True),
    Column("MEMORY", "memory_mib", words.mib, right=True),
    Column("RESERVED", "memory_reserved_mib", words.mib, right=True),
    Column("USED", "memory_used_mib", words.mib, right=True),
    Column("DISK", "disk_total_mib", words.mib, right=True), Column("FREE", "disk_free_mib", words.mib, right=True),
    Column("INSTANCES", "instances", words.number, right=True),
    Column("SAMPLED", "sampled_at", words.age, right=True),
)  # fmt: skip
FORECAST = (
    Column("CLUSTER", "cluster"), Column("RESOURCE", "resource"), Column("RESERVED", "used", right=True),
    Column("OF", "total", right=True), Column("IN 30 DAYS", "in_30_days", right=True),
    Column("4 OF 5 TIMES", "between", right=True), Column("RUNS OUT", "runs_out_at", words.until),
    Column("EARLIEST", "earliest_at", words.until), Column("LATEST", "latest_at", words.until),
)  # fmt: skip
_JUDGED_AFTER_S = 14 * 86400  # a week to learn from, and the week that is foretold


@app.command()
def explain(name: InstanceName, output: Output = Format.TABLE) -> None:
    """Say why an instance is where it is, or why nowhere: every host with its reason, and what would help."""
    told = session.api().get(f"instances/{part(name)}/explain")
    if output in (Format.TABLE, Format.WIDE):
        show_reasons(name, told)
    else:
        dump(told, output)


@app.command()
def capacity(
    forecast: Annotated[
        bool, typer.Option("--forecast", help="What clusters will be asked for, and when they run out.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show what the hosts have, what is reserved on them and what is used."""
    if forecast:
        _forecast(session.api().get("capacity/forecast"), output)
        return
    rows = session.api().get("capacity")
    named = [{**row, "name": row.get("host")} for row in rows] if output is Format.NAME else rows
    show_list(named, "host", output, columns=CAPACITY)


def _forecast(rows: list[dict[str, Any]], output: Format) -> None:
    named = [{**row, "name": row.get("cluster")} for row in rows] if output is Format.NAME else rows
    if output in (Format.TABLE, Format.WIDE):
        named = [_in_units(row) for row in rows]
    show_list(named, "forecast", output, columns=FORECAST)
    if not (rows and rows[0]["proven"]):
        talk(_why_unproven(rows, session.api().get("status")["history"].get("sampled_since")))


def _why_unproven(rows: list[dict[str, Any]], since: str | None) -> str:
    """Say since when there is history, and how much is needed; since: of the first sample of what clusters hold."""
    if since is None:
        return "nothing was sampled so far: what clusters hold is, every 5 minutes"
    if rows and (words.seconds_between(since, None) or 0) >= _JUDGED_AFTER_S:
        return "so far such forecasts did not do better than `stays as it is`: see rackflow history backtest"
    needed = "forecasts are made every 5 minutes, have a trend from 5 days of history on, and are judged from 14 on"
    return f"there is history since {since}: {needed}"


def _in_units(row: Mapping[str, Any]) -> dict[str, Any]:
    form = words.mib if str(row["resource"]).endswith("_mib") else lambda value: f"{value:.1f}"
    figures = {key: row[key] for key in ("used", "total", "in_30_days", "in_30_days_low", "in_30_days_high")}
    said = {key: words.NOTHING if value is None else form(value) for key, value in figures.items()}
    between = f"{said['in_30_days_low']} to {said['in_30_days_high']}"
    return {**row, **said, "resource": str(row["resource"]).removesuffix("_mib"), "between": between}


@app.command()
def query(
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="One SELECT; - reads it from standard input.", show_default=False)
    ],
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Rows at most.")] = 1000,
    output: Output = Format.TABLE,
) -> None:
    """Run one SELECT over the history: events, steps, usage and the views over them.

    `rackflow query "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal"` names the views.
    """
    text = sys.stdin.read() if sql == "-" else sql
    answer = session.api().post("query", {"sql": text, "limit": limit})
    columns = [str(column) for column in answer["columns"]]
    rows = [dict(zip(columns, row, strict=True)) for row in answer["rows"]]
    if output in (Format.TABLE, Format.WIDE):
        draw(rows, [_plain(name, rows) for name in columns], wide=True)
    elif output is Format.NAME:
        print("\n".join(words.text(next(iter(row.values()))) for row in rows))
    else:
        dump(rows, output)
    if answer.get("truncated"):
        talk(f"only the first {words.counted(len(rows), 'row')}; --limit shows more")


def _plain(name: str, rows: list[dict[str, Any]]) -> Column:
    numbers = all(isinstance(row[name], int | float) or row[name] is None for row in rows)
    return Column(name, name, right=numbers and bool(rows))


@app.command()
def reconcile(
    hosts: SomeHosts = None, wait: Wait = True, timeout: Timeout = WAIT_TIMEOUT_S, output: Output = Format.TABLE
) -> None:
    """Compare record and world now, and repair what differs."""
    answer = session.api().post("reconcile", {"hosts": hosts or []})
    carry_out(answer, output, wait=wait, timeout_s=timeout)
