"""rackflow cluster …"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rackflow_cli.commands.common import create as make
from rackflow_cli.commands.common import deletes, reads
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.options import LabelsOption, NewName, Output, given, pairs
from rackflow_cli.output import Format
from rackflow_cli.tree import group

app = group("Hosts that share datastores and networks.")
reads(app, "cluster")
deletes(app, "cluster")


@app.command()
def create(
    name: NewName,
    cpu_overcommit: Annotated[float | None, typer.Option(help="Cores given away for each real one.")] = None,
    cpu_learned_max: Annotated[
        float | None, typer.Option(help="Give cores away by what is used, so many times at most; 0: by a fixed ratio.")
    ] = None,
    memory_overcommit: Annotated[float | None, typer.Option(help="Memory given away for each real byte.")] = None,
    placement_policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="By which policy its hosts are compared; the front-end's.")
    ] = None,
    rebalance: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Let it move instances by itself: rebalance or consolidate."),
    ] = None,
    moves_per_hour: Annotated[int | None, typer.Option(min=1, metavar="N", help="So many at most; 20.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=100, metavar="PERCENT", help="Above the lowest load that is let be; 10.")
    ] = None,
    sleep_after: Annotated[
        int | None, typer.Option(min=1, metavar="MINUTES", help="Let it switch off hosts that are idle for so long.")
    ] = None,
    min_awake: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="So many hosts stay on; 2.")
    ] = None,
    spare_hosts: Annotated[int | None, typer.Option(min=0, metavar="N", help="That may fail without harm; 1.")] = None,
    headroom: Annotated[
        float | None, typer.Option(min=0, max=1000, metavar="PERCENT", help="Of what is needed stays free; 20.")
    ] = None,
    sleep_between: Annotated[
        str | None, typer.Option(metavar="HH:MM-HH:MM", help="UTC: only then hosts are switched off.")
    ] = None,
    label: LabelsOption = None,
    output: Output = Format.TABLE,
) -> None:
    """Create a cluster."""
    make("cluster", {"name": name, **given(
        cpu_overcommit=cpu_overcommit, cpu_learned_max=cpu_learned_max, memory_overcommit=memory_overcommit,
        placement_policy=placement_policy, labels=pairs(label, "--label"),
        rebalance=_automatic(rebalance, moves_per_hour, threshold),
        power=_power(sleep_after, given(
            min_awake=min_awake, spare_hosts=spare_hosts, sleep_between=sleep_between,
            headroom=None if headroom is None else headroom / 100,
        )),
    )}, output)  # fmt: skip


def _automatic(kind: str | None, most: int | None, threshold: float | None) -> dict[str, Any] | None:
    """Return what a cluster may do by itself, None: nothing. Raise CliError (usage)."""
    if kind is None:
        if most is not None or threshold is not None:
            raise CliError("limits of what?", ExitCode.USAGE, fix="add --rebalance rebalance, or consolidate")
        return None
    share = None if threshold is None else threshold / 100
    return {"mode": "automatic", "kind": kind, **given(max_moves_per_hour=most, threshold=share)}


def _power(idle_minutes: int | None, limits: dict[str, Any]) -> dict[str, Any] | None:
    """Return how a cluster saves power by itself, None: not at all. Raise CliError (usage)."""
    if idle_minutes is None:
        if limits:
            raise CliError("limits of what?", ExitCode.USAGE, fix="add --sleep-after MINUTES")
        return None
    return {"mode": "automatic", "idle_minutes": idle_minutes, **limits}
