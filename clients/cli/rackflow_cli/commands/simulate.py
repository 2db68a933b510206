"""rackflow simulate: given arrivals on given hosts, through the placement that the cloud itself uses."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rackflow_cli import words
from rackflow_cli.columns import Column
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.options import Output
from rackflow_cli.output import Format, draw, dump
from rackflow_cli.rooms import ask
from rackflow_cli.session import session, talk
from rackflow_cli.tree import group

app = group("Simulations.")

_COLUMNS = (
    Column("POLICY", "policy"), Column("HOSTS", "hosts", words.number, right=True),
    Column("PLACED", "placed", words.number, right=True), Column("REJECTED", "rejected", words.number, right=True),
    Column("USED AT MOST", "hosts_used_peak", words.number, right=True),
    Column("EMPTY %", "empty_hosts_mean_percent", words.number, right=True),
    Column("MIN HOSTS", "min_hosts", words.number, right=True, rare=True),
    Column("MOVED", "moved", words.number, right=True, rare=True),
    Column("STRANDED", "stranded", words.number, right=True, rare=True),
    Column("STUCK", "stuck", words.number, right=True, rare=True),
    Column("COPIES", "image_copies", words.number, right=True, rare=True),
    Column("MORE FIT", "fits", words.number, right=True, rare=True),
    Column("FIRST REJECTED", "first_rejection.name", rare=True),
    Column("AT", "first_rejection.at_s", words.duration, right=True, rare=True),
    Column("CPU S", "cpu_s", words.number, right=True),
)  # fmt: skip
_SIDES = (
    Column("", "what"), Column("PLACED", "placed", words.number, right=True),
    Column("REJECTED", "rejected", words.number, right=True), Column("OPENED", "opened", words.number, right=True),
)  # fmt: skip
_DIFFERENCES = (Column("AT", "at"), Column("INSTANCE", "name"), Column("WAS", "recorded"), Column("NOW", "now"))

Network = Annotated[
    list[str] | None, typer.Option(metavar="NAME=N", help="Its free addresses, as lan=250[,KEY=VALUE]; repeatable.")
]
Add = Annotated[
    list[str] | None, typer.Option(metavar="NxCPUSc/MEMORY[/DISK]@TIME", help="Hosts that come then; repeatable.")
]
Lose = Annotated[
    list[str] | None, typer.Option(metavar="N@TIME", help="Hosts that die; what they ran starts elsewhere.")
]


@app.command()
def simulate(
    arrivals: Annotated[
        str, typer.Option(metavar="FILE", help="CSV of what comes and goes; - is standard input.")
    ] = "",
    hosts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NxCPUSc/MEMORY[/DISK]", help="As 300x64c/192GiB[/2TiB][,cluster=NAME][,KEY=VALUE]; repeatable."
        ),
    ] = None,
    policy: Annotated[str, typer.Option(metavar="NAME", help="The policy of placement; else the usual one.")] = "",
    history: Annotated[
        str, typer.Option(metavar="FILE", help="CSV of past arrivals, from which lifetimes are learned.")
    ] = "",
    until_rejection: Annotated[
        bool, typer.Option("--until-rejection", help="Stop when something fits nowhere: when, what and why.")
    ] = False,
    find_min_hosts: Annotated[
        bool, typer.Option("--find-min-hosts", help="How few hosts of the first --hosts would do without rejection.")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="All policies, one after the other.")] = False,
    fit: Annotated[str, typer.Option(metavar="CPU,MEMORY[,DISK]", help="How many more of it fit at the end.")] = "",
    network: Network = None,
    add: Add = None,
    lose: Lose = None,
    drain: Annotated[list[str] | None, typer.Option(metavar="N@TIME", help="Hosts that are emptied.")] = None,
    spare: Annotated[
        int, typer.Option(min=0, metavar="N", help="Hosts kept empty that step in for lost ones (N+1: 1).")
    ] = 0,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Decide again what this front-end decided in the last days, and compare.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Chooses which hosts are lost and drained.")] = 0,
    output: Output = Format.TABLE,
) -> None:
    """Replay arrivals on hosts that need not exist: what fits, when it runs out, which policy serves better.

    The CSV has a header: name,arrival_s,lifetime_s,cpu,memory_mib and, where wanted, owner,template,kind,labels,
    disk_gib,image,image_gib,network. An empty lifetime_s: it never leaves. What arrives at one moment is placed as one
    batch. TIME counts as arrival_s does (90, 15m, 36h, 2d). Needs no front-end. Means leave out the first day.

    --recorded takes the decisions in the state database instead: they come out the same, or else it fails with code 1;
    with --policy it says what another policy would have done at each of them.
    """
    _check(bool(arrivals), bool(hosts), recorded, until_rejection and find_min_hosts)
    told = ask("daemon.simulate", {
        "arrivals": arrivals, "hosts": hosts or [], "recorded": recorded, "policy": policy, "history": history,
        "fit": fit, "seed": seed, "spare": spare, "compare": compare, "find_min_hosts": find_min_hosts,
        "add": add or [], "until_rejection": until_rejection, "lose": lose or [], "networks": network or [],
        "drain": drain or [], "quiet": session.quiet,
    })  # fmt: skip
    if recorded:
        _show_replay(told["replay"], output)
        return
    if history and not told["learned"]:
        talk("the history foretells lifetimes no better than a naive answer does: it is not used")
    _show(told["answers"], output, many=compare)


def _check(arrivals: bool, hosts: bool, recorded: bool, both_ends: bool) -> None:
    """Raise CliError when it is not clear what is asked for."""
    if recorded == (arrivals or hosts) or arrivals != hosts:
        said = "--recorded takes no arrivals and no hosts" if recorded else "what is to be simulated?"
        fix = "name --arrivals FILE and --hosts NxCPUSc/MEMORY, or --recorded"
        raise CliError(said, ExitCode.USAGE, fix=fix)
    if both_ends:
        fix = "ask for one of the two"
        raise CliError("--until-rejection and --find-min-hosts answer different questions", ExitCode.USAGE, fix=fix)


def _show(answers: list[dict[str, Any]], output: Format, *, many: bool) -> None:
    if output in (Format.JSON, Format.YAML):
        dump(answers if many else answers[0], output)
    elif output is Format.NAME:
        print("\n".join(one["policy"] for one in answers))
    else:
        draw(answers, _COLUMNS, wide=output is Format.WIDE)
        for one in answers[: 0 if many else 1]:
            _say_why(one.get("first_rejection"))


def _show_replay(told: dict[str, Any], output: Format) -> None:
    """Print what came out; raise CliError when the same policy decides otherwise than it did."""
    if output in (Format.JSON, Format.YAML):
        dump(told, output)
    else:
        sides = [{"what": side, **told[side]} for side in ("recorded", "replayed")]
        draw(sides, _SIDES, wide=False)
        if told["differences"]:
            draw(told["differences"], _DIFFERENCES, wide=False)
        rounds = words.counted(told["rounds"], "round")
        talk(f"{told['same_decisions']} of {told['decisions']} decisions in {rounds} are the same")
    if not told["policy"] and told["same_rounds"] < told["rounds"]:
        raise CliError(
            f"{told['rounds'] - told['same_rounds']} of {told['rounds']} rounds come out otherwise than recorded",
            fix="was rackflow brought up to date since? placement may have changed",
        )  # fmt: skip


def _say_why(rejection: dict[str, Any] | None) -> None:
    if rejection:
        talk(f"{rejection['name']} fitted nowhere at {rejection['at_s']:g} s: {rejection['why']}")
        if rejection["change"]:
            talk(f"what would help: {rejection['change']}")
