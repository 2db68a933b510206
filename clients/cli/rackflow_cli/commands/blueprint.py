"""rackflow apply, plan and delete: whole blueprints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from rackflow_cli import files
from rackflow_cli.commands.common import agreed
from rackflow_cli.connection import part
from rackflow_cli.errors import CliError, ExitCode, NotFoundError
from rackflow_cli.hostkeys import confirmed
from rackflow_cli.operations import carry_out, settle, watch
from rackflow_cli.options import WAIT_TIMEOUT_S, Output, Timeout, Wait
from rackflow_cli.output import Format, dump, show_list
from rackflow_cli.plans import refuse_what_differs, show_changes, show_plan
from rackflow_cli.session import complain, session, talk
from rackflow_cli.tree import group
from rackflow_cli.words import counted

app = group("Blueprints.")

Files = Annotated[
    list[str] | None,
    typer.Option("-f", "--file", metavar="FILE", help="Blueprint; - is standard input; repeatable."),
]
Prune = Annotated[bool, typer.Option("--prune", help="Delete instances of a count that was lowered.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

# The order in which things can go away: each is used by those before it.
NOUNS = ("instance", "image", "network", "host", "datastore", "cluster")
_AT_ONCE = ("network", "datastore", "cluster")  # no operation, gone with the answer
_OURS = {("cluster", "default"), ("datastore", "local")}  # `rackflow up` made them: a blueprint may change them only


def _read(given: Sequence[str] | None) -> dict[str, Any]:
    if not given:
        raise CliError("which blueprint?", ExitCode.USAGE, fix="name it with -f FILE")
    return files.read(given)


@app.command()
def apply(
    file: Files = None,
    prune: Prune = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Trust the host keys that new hosts show.")] = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Make the cloud as a blueprint says. Applied again it changes only what differs."""
    blueprint = _read(file)
    if not dry_run:
        _vouch(blueprint, yes)
    body = {"blueprint": blueprint, "prune": prune, "dry_run": dry_run}
    answer = session.api().post("apply", body)
    if dry_run:
        _show(answer, output)
        return
    show_changes(answer)
    carry_out(answer, output, wait=wait, timeout_s=timeout)
    refuse_what_differs(answer)


def _show(answer: dict[str, Any], output: Format) -> None:
    if output in (Format.TABLE, Format.WIDE, Format.NAME):
        show_plan(answer, output)
    else:
        dump(answer, output)


def _vouch(blueprint: dict[str, Any], yes: bool) -> None:
    """Fill in the fingerprints that the blueprint leaves out: accepted by the person, or as accepted before."""
    for host in blueprint.get("hosts", ()):
        if host.get("fingerprint"):
            continue
        try:
            known = session.api().get(f"hosts/{part(host['name'])}")["spec"].get("fingerprint")
        except NotFoundError:
            known = confirmed(host["address"], host.get("port"), yes, host.get("driver"))
        if known:
            host["fingerprint"] = known


@app.command()
def plan(file: Files = None, prune: Prune = False, output: Output = Format.TABLE) -> None:
    """Say what `apply` would do, and where new instances would be placed. Nothing is changed."""
    _show(session.api().post("plan", {"blueprint": _read(file), "prune": prune}), output)


@app.command()
def delete(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="NOUN/NAME...", help="E.g. instance/web.", show_default=False)
    ] = None,
    file: Files = None,
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Delete what a blueprint names, or NOUN/NAME: instances first, then what they used. What is gone is no error.

    With --no-wait only the last of these stages is not waited for.
    """
    wanted = [_target(text) for text in targets or ()]
    if file or not wanted:
        wanted += list(_named(_read(file)))
    if wanted:
        agreed(f"Delete {_listed(wanted)}?", yes)
    code = _delete_all(wanted, wait, timeout, output)
    if code is not ExitCode.DONE:
        raise typer.Exit(code)


def _target(text: str) -> tuple[str, str]:
    noun, slash, name = text.partition("/")
    noun = noun.removesuffix("s")
    if not (slash and name) or noun not in NOUNS:
        raise CliError(f"{text!r} is not NOUN/NAME", ExitCode.USAGE, fix=f"nouns are {', '.join(NOUNS)}")
    return noun, name


def _named(blueprint: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for noun in NOUNS:
        for spec in blueprint.get(f"{noun}s", ()):
            count = spec.get("count")
            names = [spec["name"]] if count is None else [f"{spec['name']}-{i}" for i in range(1, count + 1)]
            yield from ((noun, name) for name in names if (noun, name) not in _OURS)


def _listed(wanted: Sequence[tuple[str, str]]) -> str:
    counts = [(noun, sum(1 for other, _ in wanted if other == noun)) for noun in NOUNS]
    return ", ".join(counted(count, noun) for noun, count in counts if count)


def _delete_all(wanted: Sequence[tuple[str, str]], wait: bool, timeout: float, output: Format) -> ExitCode:
    """Delete stage by stage; what cannot go is told, and does not keep the others."""
    codes: list[ExitCode] = []
    stages = [[name for other, name in wanted if other == noun] for noun in NOUNS]
    last = max((n for n, names in enumerate(stages) if names), default=0)
    ended: list[Any] = []
    for number, (noun, names) in enumerate(zip(NOUNS, stages, strict=True)):
        started, refused = _ask(noun, names)
        codes += refused
        if started and (wait or number != last):
            started = watch(started, timeout)
            codes.append(settle(started))
        ended += started
    if output not in (Format.TABLE, Format.WIDE):
        show_list(ended, "operation", output)
    bad = {code for code in codes if code is not ExitCode.DONE}
    return ExitCode.DONE if not bad else bad.pop() if len(bad) == 1 else ExitCode.FAILED


def _ask(noun: str, names: Sequence[str]) -> tuple[list[Any], list[ExitCode]]:
    operations: list[Any] = []
    refused: list[ExitCode] = []
    for name in names:
        try:
            answer = session.api().delete(f"{noun}s/{part(name)}")
        except NotFoundError:
            talk(f"{noun} {name} is not there")
        except CliError as error:
            complain(error)
            refused.append(error.code)
        else:
            operations += answer.get("operations", ())
            if noun in _AT_ONCE:
                talk(f"{noun} {name} deleted")
    return operations, refused
