"""rackflow plan …: what a blueprint would change, and moves between hosts that are looked at before they are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rackflow_cli import words
from rackflow_cli.commands import blueprint
from rackflow_cli.commands.common import agreed
from rackflow_cli.connection import part
from rackflow_cli.names import ClusterOption, HostName, names_of
from rackflow_cli.operations import carry_out
from rackflow_cli.options import WAIT_TIMEOUT_S, Output, Timeout, Wait, given
from rackflow_cli.output import Format, show_list, show_one
from rackflow_cli.session import session, talk
from rackflow_cli.tree import shorthand

app = shorthand(
    "What a blueprint would change (`plan -f FILE` for short), and moves between hosts: planned, shown, applied.",
    "blueprint",
)
app.command("blueprint")(blueprint.plan)

_NAMES = 5

PlanId = Annotated[
    str, typer.Argument(metavar="PLAN", help="Id.", autocompletion=names_of("plans"), show_default=False)
]
Threshold = Annotated[
    float | None,
    typer.Option(min=0, max=100, metavar="PERCENT", help="Above the lowest load by so little is let be; 5."),
]
Cold = Annotated[bool, typer.Option("--cold", help="Also move what has to be shut down for the way.")]


def _make(body: dict[str, Any], output: Format) -> None:
    made = session.api().post("plans", body)
    _show(made, output)
    if not made["moves"]:
        talk("nothing to move: no plan would be better")
    elif output in (Format.TABLE, Format.WIDE):
        talk(f"nothing is moved yet: rackflow plan apply {made['id']}")


@app.command()
def rebalance(
    cluster: ClusterOption = None, threshold: Threshold = None, cold: Cold = False, output: Output = Format.TABLE
) -> None:
    """Plan to even the load of hosts, cluster by cluster, by the cheapest moves that are worth it."""
    share = None if threshold is None else threshold / 100
    _make({"kind": "rebalance", **given(cluster=cluster, threshold=share, cold=cold or None)}, output)


@app.command()
def consolidate(cluster: ClusterOption = None, cold: Cold = False, output: Output = Format.TABLE) -> None:
    """Plan to use as few hosts as can be, moving as little as can be, so that the others can be switched off."""
    _make({"kind": "consolidate", **given(cluster=cluster, cold=cold or None)}, output)


@app.command()
def evacuate(
    host: HostName, cluster: ClusterOption = None, cold: Cold = False, output: Output = Format.TABLE
) -> None:
    """Plan to move all off a host; others move only where that makes room. Applied, it takes no more."""
    _make({"kind": "evacuate", "host": host, **given(cluster=cluster, cold=cold or None)}, output)


@app.command("list")
def list_(output: Output = Format.TABLE) -> None:
    """List plans, the newest first."""
    found, drawn = session.api().items("plans"), output in (Format.TABLE, Format.WIDE)
    show_list([{**row, **_figures(row)} if drawn else row for row in found], "plan", output)


@app.command()
def show(plan: PlanId, output: Output = Format.TABLE) -> None:
    """Show a plan: what it comes to, its moves in order, and how far each one is."""
    _show(session.api().get(f"plans/{part(plan)}"), output)


@app.command()
def apply(
    plan: PlanId,
    parallel: Annotated[int | None, typer.Option(min=1, metavar="N", help="So many moves at a time; 4.")] = None,
    per_host: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of these of one host; 2.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Make the moves of a plan. It is refused when the world has moved since."""
    found = session.api().get(f"plans/{part(plan)}")
    agreed(f"Make {words.counted(len(found['moves']), 'move')} ({_said(found)})?", yes)
    answer = session.api().post(f"plans/{part(plan)}/apply", given(parallel=parallel, per_host=per_host))
    carry_out(answer, output, wait=wait, timeout_s=timeout,
              then=lambda: _show(session.api().get(f"plans/{part(plan)}"), output))  # fmt: skip


@app.command()
def cancel(plan: PlanId) -> None:
    """Let a plan never be applied; one that is being carried out begins no more moves."""
    found = session.api().get(f"plans/{part(plan)}")
    if found["state"] == "applying":
        session.api().post(f"operations/{part(found['operation'])}/cancel", {})
        talk(f"plan {plan}: no more moves begin, what is under way comes to its end")
    else:
        session.api().post(f"plans/{part(plan)}/cancel", {})
        talk(f"plan {plan} cancelled")


def _said(plan: Mapping[str, Any]) -> str:
    before, after = plan["effect"]["before"], plan["effect"]["after"]
    return (
        f"hosts in use {before['hosts_used']} → {after['hosts_used']},"
        f" greatest load {before['greatest_share']:.0%} → {after['greatest_share']:.0%}"
    )


def _wishes(effect: Mapping[str, Any]) -> str:
    """Return how many wishes are broken before and after, and what is mended; "" where none is broken."""
    before, after = (
        [f"{one['instance']}: {one['rule']}" for one in effect[when].get("broken_wishes") or ()]
        for when in ("before", "after")
    )
    if not before and not after:
        return ""
    mended = [one for one in before if one not in after]
    more = f" and {len(mended) - _NAMES} more" if mended[_NAMES:] else ""
    told = [f"broken {len(before)} → {len(after)}", *(f"mended: {one}" for one in mended[:_NAMES])]
    return "\n".join(told) + more


def _figures(plan: Mapping[str, Any]) -> dict[str, Any]:
    before, after = plan["effect"]["before"], plan["effect"]["after"]
    return {
        "where": plan["host"] or plan["cluster"],
        "hosts": f"{before['hosts_used']} → {after['hosts_used']}",
        "load": f"{before['greatest_share']:.0%} → {after['greatest_share']:.0%}",
    }


def _show(plan: dict[str, Any], output: Format) -> None:
    if output not in (Format.TABLE, Format.WIDE):
        show_one(plan, "plan", output)
        return
    proven = "proven to be the best" if plan["optimal"] else "not proven to be the best"
    fields = {
        "id": plan["id"], "plan": f"{plan['kind']} {plan['host'] or plan['cluster'] or ''}".strip(),
        "state": plan["state"], "effect": _said(plan), "empty": plan["effect"]["after"]["empty_hosts"],
        "wishes": _wishes(plan["effect"]),
        "found": f"{plan['method']}, {proven}", "takes": words.duration(plan["eta_s"]),
        "error": (plan["error"] or {}).get("message"),
        "stays": _stays(plan["stays"]),
    }  # fmt: skip
    show_one(
        {**{key: value for key, value in fields.items() if value}, "moves": []}, "plan", output,
        {"moves": [{**move, "n": n, "how": _how(move)} for n, move in enumerate(plan["moves"], 1)]},
    )  # fmt: skip


def _stays(why: Mapping[str, str]) -> str:
    """Return who stays, by reason: a few names of each."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in why.items():
        by_reason.setdefault(reason, []).append(name)
    return "\n".join(
        f"{', '.join(names[:_NAMES])}{f' and {len(names) - _NAMES} more' if names[_NAMES:] else ''}: {reason}"
        for reason, names in by_reason.items()
    )


def _how(move: Mapping[str, Any]) -> str:
    return {True: "live", False: "cold"}.get(move["live"], "off")
