"""What is known of a machine: for `rackflow machine` and, as the host on it bears its name, for `rackflow host`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rackflow_cli.connection import part
from rackflow_cli.enrolling import see_through
from rackflow_cli.errors import CliError, ExitCode, why_unread
from rackflow_cli.machines import BurnIn, Checks, MachineName, hardware, look, summary
from rackflow_cli.names import names_of
from rackflow_cli.options import WAIT_TIMEOUT_S, Output, Timeout
from rackflow_cli.output import Format, dump, show_list, show_one
from rackflow_cli.session import session, talk
from rackflow_cli.words import counted

_TABLES = (Format.TABLE, Format.WIDE)


def add_looks(app: typer.Typer, *, host: bool = False) -> None:
    """Add the commands to a group. host: only those that concern a host as well."""
    wanted = ("inventory", "checks", "rules") if host else tuple(_COMMANDS)
    for word in wanted:
        app.command(word)(_COMMANDS[word])


def inventory(name: MachineName, output: Output = Format.TABLE) -> None:
    """Show what a machine is made of, by its last inspection."""
    found = session.api().get(f"machines/{part(name)}")["inventory"]
    if found is None:
        raise CliError(
            f"machine {name} was never inspected", ExitCode.NOT_FOUND, fix=f"rackflow machine reinspect {name}"
        )
    show_one(found if output not in _TABLES else summary(found), "inventory", output)


def history(name: MachineName, output: Output = Format.TABLE) -> None:
    """Show every inspection of a machine, newest first, with what differed from the one before."""
    found = session.api().get(f"machines/{part(name)}/inventory")
    show_list(found if output not in _TABLES else [look(row) for row in found], "inspection", output)


def checks(
    name: MachineName,
    run: Annotated[bool, typer.Option("--run", help="Try its hardware now, with all tools installed there.")] = False,
    check: Checks = None,
    burn_in: BurnIn = None,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Show the checks of a machine with their figures; --run, --check and --burn-in try its hardware first."""
    tried = hardware(check, burn_in, always=run)
    if tried is not None:
        operations = session.api().post("machines/look", {"machines": [name], "hardware": tried})["operations"]
        try:
            see_through(operations, [name], Format.TABLE, wait=True, timeout_s=timeout)
        finally:
            _show_checks(name, output)
    else:
        _show_checks(name, output)


def _show_checks(name: str, output: Format) -> None:
    show_list(session.api().get(f"machines/{part(name)}")["checks"], "check", output)


def health(
    name: MachineName,
    sensor: Annotated[str | None, typer.Option(metavar="NAME", help="The readings of that one, newest first.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="So many log entries, or readings.")] = 50,
    output: Output = Format.TABLE,
) -> None:
    """Show what the BMC of a machine tells: each sensor now and over a week, and the event log."""
    found = session.api().get(f"machines/{part(name)}/health", {"sensor": sensor, "limit": limit})
    if output not in _TABLES:
        dump(found if sensor is None else found["readings"], output)
    elif sensor is not None:
        show_list(found["readings"], "reading", output)
    else:
        show_list(found["sensors"], "sensor", output)
        if found["log"]:
            print()
            show_list(found["log"], "log-entry", output)
        if not found["sensors"]:
            talk("its BMC was not looked at yet: that is done every 10 minutes")


def rules(
    machines: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MACHINE...", help="With --try: on these; by default on all.", show_default=False,
            autocompletion=names_of("machines"),
        ),
    ] = None,
    set_: Annotated[str | None, typer.Option("--set", metavar="FILE", help="Replace them by those of a file.")] = None,
    try_: Annotated[
        bool, typer.Option("--try", help="Say what they would make of machines; nothing is written.")
    ] = False,
    file: Annotated[str | None, typer.Option("--file", metavar="FILE", help="With --try: rules of a file.")] = None,
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """Show, replace or try the rules that classify and check machines."""
    if set_ is not None:
        done = session.api().put("machines/rules", _read(set_))
        talk(f"{_counts(done)}: they hold from the next inspection on")
    elif try_:
        given = {} if file is None else {"rules": _read(file)}
        found = session.api().post("machines/rules/try", {**given, "machines": list(machines or ())})
        show_list(found, "tried", output)
    elif machines or file:
        fix = "--try says what they would make of machines, --set FILE replaces them"
        raise CliError("what is to be done with the rules?", ExitCode.USAGE, fix=fix)
    else:
        _show_rules(session.api().get("machines/rules"), output)


def _read(file: str) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CliError(f"the rules cannot be read from {file}: {why_unread(error)}", ExitCode.USAGE) from error
    if not isinstance(found, dict):
        raise CliError(f"{file} holds no rules", ExitCode.USAGE, fix='write "classify:" and "checks:", lists of rules')
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


def _counts(found: dict[str, Any]) -> str:
    kinds = (counted(len(found["classify"]), "rule") + " to classify", counted(len(found["checks"]), "check"))
    return ", ".join(kinds)


def _show_rules(found: dict[str, Any], output: Format) -> None:
    if output not in _TABLES:
        dump(found, output)
        return
    show_list(found["classify"], "rule", output)
    if found["checks"]:
        print()
        show_list(found["checks"], "check-rule", output)


_COMMANDS: dict[str, Callable[..., None]] = {
    "inventory": inventory, "history": history, "checks": checks, "health": health, "rules": rules,
}  # fmt: skip
