"""rackflow top: what hosts and instances use, again and again on a terminal, once elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from rackflow_cli import words
from rackflow_cli.columns import Column
from rackflow_cli.options import Output
from rackflow_cli.output import Format, dump, put, table_of
from rackflow_cli.session import session
from rackflow_cli.tree import group

app = group("Looking at the cloud.")


class By(StrEnum):
    """What comes first."""

    CPU = "cpu"
    MEMORY = "memory"
    NAME = "name"


def _cores(value: Any) -> str:
    return words.NOTHING if value is None else f"{value:.2f}"


def _percent(value: Any) -> str:
    return words.NOTHING if value is None else f"{100 * value:.0f}%"


def _columns(noun: str) -> tuple[Column, ...]:
    return (
        Column(noun.upper(), noun), *([Column("HOST", "host")] if noun == "instance" else []),
        Column("CPU", "cpu_used", _cores, right=True), Column("OF", "cpus", words.number, right=True),
        Column("CPU%", "cpu_ratio", _percent, right=True), Column("MEMORY", "memory_used_mib", words.mib, right=True),
        Column("OF", "memory_mib", words.mib, right=True), Column("MEM%", "memory_ratio", _percent, right=True),
        Column("SAMPLED", "sampled_at", words.age, right=True),
    )  # fmt: skip


HOSTS, INSTANCES = _columns("host"), _columns("instance")
_ORDER = {By.CPU: "cpu_used", By.MEMORY: "memory_used_mib"}


@app.command()
def top(
    by: Annotated[By, typer.Option("--by", help="What comes first.")] = By.CPU,
    every: Annotated[float, typer.Option(min=0.5, metavar="SECONDS", help="How often to look again.")] = 2.0,
    count: Annotated[int | None, typer.Option("-n", min=1, metavar="N", help="Instances at most.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show what hosts and instances use: again and again on a terminal until Ctrl-C, once elsewhere.

    Hosts are measured about once a minute; SAMPLED says how old a figure is.
    """
    if output in (Format.JSON, Format.YAML):
        dump(session.api().get("usage"), output)
    elif output is Format.NAME:
        for row in _ordered(session.api().get("usage")["instances"], by, "instance"):
            print(row["instance"])
    elif once or not sys.stdout.isatty():
        _once(by, count)
    else:
        _live(by, count, every)


def _parts(by: By, count: int | None) -> list[Any]:
    """Return the tables of hosts and of instances, those that use most first; words where there are none."""
    told = session.api().get("usage")
    hosts, instances = _ordered(told["hosts"], by, "host"), _ordered(told["instances"], by, "instance")
    return [
        table_of(hosts, HOSTS) if hosts else "no hosts", "",
        table_of(instances[:count], INSTANCES) if instances else "no instances",
    ]  # fmt: skip


def _once(by: By, count: int | None) -> None:
    for piece in _parts(by, count):
        put(piece)


def _live(by: By, count: int | None, every: float) -> None:
    from rich.console import Console, Group
    from rich.live import Live

    console = Console(no_color=not session.colors(sys.stdout), highlight=False, markup=False, emoji=False)
    with Live(Group(*_parts(by, count)), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(every)
            live.update(Group(*_parts(by, count)), refresh=True)


def _ordered(rows: list[dict[str, Any]], by: By, noun: str) -> list[dict[str, Any]]:
    rows = sorted(({**row, **_ratios(row)} for row in rows), key=lambda row: str(row[noun]))
    return rows if by is By.NAME else sorted(rows, key=lambda row: -float(row.get(_ORDER[by]) or 0.0))


def _ratios(row: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        f"{what}_ratio": row[used] / row[whole] if row.get(used) is not None and row.get(whole) else None
        for what, used, whole in (("cpu", "cpu_used", "cpus"), ("memory", "memory_used_mib", "memory_mib"))
    }
