"""rackflow driver …: which kinds of host there are, and the conformance kit. Needs no front-end that runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rackflow_cli import words
from rackflow_cli.columns import Column
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.options import Output
from rackflow_cli.output import Format, draw, dump, show_list
from rackflow_cli.rooms import ask
from rackflow_cli.session import session, talk
from rackflow_cli.tree import group

app = group("Drivers: how kinds of host are spoken to, rackflow's own and those that packages bring.")

_DRIVERS = (
    Column("NAME", "name"), Column("BROUGHT BY", "package"), Column("TRIED ON", "tried_on"),
    Column("AT", "tried_at"), Column("PROVEN", "proven", words.number, right=True),
    Column("FAILED", "failed", words.number, right=True),
    Column("UNSUPPORTED", "unsupported", words.number, right=True),
    Column("NOT REACHED", "not_reached", words.number, right=True), Column("ERROR", "error", rare=True),
    Column("MODULE", "module", wide=True),
)  # fmt: skip
_ROWS = (
    Column("FAMILY", "family"), Column("VERB", "verb"), Column("VERDICT", "verdict", state=True),
    Column("PROVEN", "proven", words.number, right=True), Column("OF", "cases", words.number, right=True),
    Column("WHY", "why"),
)  # fmt: skip
_OUTCOMES = (
    Column("FAMILY", "family"), Column("CASE", "case"), Column("VERDICT", "verdict", state=True),
    Column("TOOK", "took_s", words.duration, right=True), Column("WHY", "reason"),
)  # fmt: skip
_Name = Annotated[str, typer.Argument(metavar="NAME", help="kvm, lxd, esxi, fake, or what a package brings.")]


@app.command("list")
def list_(output: Output = Format.TABLE) -> None:
    """List the drivers, and on what each was tried last."""
    show_list(ask("daemon.drivers", {"verb": "list"})["drivers"], "driver", output, columns=_DRIVERS)


@app.command()
def show(name: _Name, output: Output = Format.TABLE) -> None:
    """Show what of a driver is proven on what: the last result of the kit, on this front-end or as shipped."""
    driver: dict[str, Any] = ask("daemon.drivers", {"verb": "show", "name": name})["driver"]
    if output in (Format.JSON, Format.YAML):
        dump(driver, output)
    elif output is Format.NAME:
        print(driver["name"])
    else:
        draw([driver], _DRIVERS, wide=output is Format.WIDE)
        print()
        _draw_rows(driver["rows"])


@app.command("test")
def try_(
    name: _Name,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="A host of the record; with --key [USER@]ADDRESS[:PORT]; fake: none.")
    ] = "",
    other: Annotated[str, typer.Option(metavar="HOST", help="Another one of its kind, for what takes two.")] = "",
    image: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="What instances start from; with an agent all can be proven.")
    ] = "",
    datastore: Annotated[str, typer.Option(metavar="PATH", help="On the host; by default rackflow's own.")] = "",
    bridge: Annotated[str, typer.Option(metavar="NAME", help="For NICs; without one instances have none.")] = "",
    family: Annotated[
        list[str] | None, typer.Option(metavar="FAMILY", help="hypervisor, storage, network or transport; repeatable.")
    ] = None,
    case: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Only cases whose names hold it; repeatable.")
    ] = None,
    first_failure: Annotated[bool, typer.Option("--first-failure", help="End with the first that fails.")] = False,
    key: Annotated[str, typer.Option(metavar="FILE", help="Private key, for hosts that are not enrolled.")] = "",
    fingerprint: Annotated[
        list[str] | None, typer.Option(metavar="SHA256:…", help="Of the host key of such a host; repeatable.")
    ] = None,
    in_use: Annotated[bool, typer.Option("--in-use", help="Also on a host that holds instances.")] = False,
    on: Annotated[str, typer.Option(metavar="TEXT", help="What it is tried on, as the result is to say it.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Run the conformance kit against a host, and say which verbs and capabilities of a driver are proven there.

    Every case of the contracts (a life, kills in the middle, wrong states, several at once, …), and a state machine
    that tries all verbs in any order with faults between. It makes instances, disks and a network of its own and takes
    them away again; what else is on the host is not touched, but loaded. A run of all families is kept for `show`.
    Code 1 when something failed. -o wide shows each case.
    """
    told = ask("daemon.drivers", {
        "verb": "test", "name": name, "host": host, "other": other, "image": image, "datastore": datastore,
        "bridge": bridge, "families": family or [], "cases": case or [], "first_failure": first_failure, "key": key,
        "fingerprints": fingerprint or [], "in_use": in_use, "on": on, "quiet": session.quiet,
    })  # fmt: skip
    report = told["report"]
    if output in (Format.JSON, Format.YAML):
        dump(report, output)
    elif output is Format.WIDE:
        draw(report["outcomes"], _OUTCOMES, wide=True)
    else:
        _draw_rows(report["rows"])
    talk(f"{report['driver']} on {report['on']}: {_sums(report['outcomes'])}")
    if told["failed"]:
        failed = [one["case"] for one in report["outcomes"] if one["verdict"] == "failed"]
        fix = f"rackflow driver test {name} --case '{failed[0]}' … repeats it alone"
        raise CliError(f"{len(failed)} cases failed: {', '.join(failed[:3])}", ExitCode.FAILED, fix=fix)


@app.command()
def page() -> None:
    """Print the table of what rackflow's own drivers were proven on, as docs/drivers.md has it."""
    print(ask("daemon.drivers", {"verb": "page"})["page"], end="")


def _draw_rows(rows: list[dict[str, Any]]) -> None:
    if rows:
        draw([{**row, "why": "; ".join(row["reasons"])} for row in rows], _ROWS, wide=False)


def _sums(outcomes: list[dict[str, Any]]) -> str:
    """Return how many cases ended how."""
    verdicts = [one["verdict"] for one in outcomes]
    return ", ".join(f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts))
