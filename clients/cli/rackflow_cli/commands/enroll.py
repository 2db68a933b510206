"""rackflow enroll: machines by their BMCs, one, a file of hundreds, or those that answer in a range of addresses."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from rackflow_cli import files
from rackflow_cli.commands.host import name_for, target
from rackflow_cli.enrolling import see_through
from rackflow_cli.errors import CliError, ExitCode, why_unread
from rackflow_cli.machines import BurnIn, Checks, hardware
from rackflow_cli.options import WAIT_TIMEOUT_S, LabelsOption, Output, Timeout, Wait, given, pairs
from rackflow_cli.output import Format, show_list
from rackflow_cli.session import session, talk
from rackflow_cli.tree import group
from rackflow_cli.words import counted

app = group("Take machines in by their BMCs.")

System = Annotated[
    str | None, typer.Option(metavar="ID", help="Which of those that the BMC manages; by default its one.")
]
NoVerify = Annotated[
    bool, typer.Option("--no-verify-tls", help="Take any certificate of the BMC: most have one of their own.")
]
Ssh = Annotated[
    str | None, typer.Option(metavar="[USER@]ADDRESS[:PORT]", help="Of the operating system that runs on it.")
]
SshKey = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Private key on the front-end; by default rackflow's own.")
]
Port = Annotated[int | None, typer.Option(min=1, max=65535, metavar="N", help="Of the BMCs to discover.")]
Range = Annotated[
    str | None, typer.Option(metavar="RANGE", help="All BMCs that speak Redfish in 10.0.0.0/24, or FIRST-LAST.")
]
Bmc = Annotated[
    str | None, typer.Option(metavar="URL", help="One machine: https://… (Redfish), ipmi://…, ironic+http://….")
]
PasswordFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Its password is read here and kept encrypted; - asks for it.")
]
_MOST = 10_000  # that the front-end takes in one request


@app.command()
def enroll(
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="YAML or CSV, a machine a row; - is standard input.", show_default=False),
    ] = None,
    bmc: Bmc = None,
    discover: Range = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="By default made from the BMC's address.")] = None,
    user: Annotated[str | None, typer.Option(metavar="USER", help="Of the BMC; of rows that name none.")] = None,
    password_file: PasswordFile = None,
    system: System = None,
    no_verify_tls: NoVerify = False,
    ssh: Ssh = None,
    ssh_key: SshKey = None,
    check: Checks = None,
    burn_in: BurnIn = None,
    label: LabelsOption = None,
    port: Port = None,
    http: Annotated[bool, typer.Option("--http", help="Discover by HTTP instead of HTTPS.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be enrolled, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Enroll what was discovered without asking.")] = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Enroll machines by their BMCs: power, inspection, rules, checks. Each one that fails says why; others go on."""
    if sum(one is not None for one in (file, bmc, discover)) != 1:
        raise CliError("say which machines: FILE, --bmc or --discover, one of them", ExitCode.USAGE)
    if bmc is None and (name or ssh or system):
        raise CliError("--name, --ssh and --system are one machine's", ExitCode.USAGE, fix="write them into the file")
    common = given(user=user, password=_password(password_file), verify_tls=False if no_verify_tls else None)
    if file is not None:
        rows = [{**_common_of(row, common), **row} for row in files.machines([file])]
    elif bmc is not None:
        rows = [{"name": name or _name_of(bmc), "bmc": bmc, **common, **given(system=system)}]
    else:
        assert discover is not None
        rows = [{**row, **common} for row in _discovered(discover, port, "http" if http else "https", output)]
    own = given(key_file=str(ssh_key.expanduser().absolute()) if ssh_key else None)
    within = given(ssh={**target(ssh), **own} if ssh else None, hardware=hardware(check, burn_in))
    rows = [{**row, **within, **_labels(row, pairs(label, "--label"))} for row in rows]
    if not rows or not _go_on(rows, discover is not None, dry_run, yes, output):
        return
    found = [session.api().post("machines", rows[at : at + _MOST]) for at in range(0, len(rows), _MOST)]
    operations = [op for answer in found for op in answer["operations"]]
    see_through(operations, [row["name"] for row in rows], output, wait=wait, timeout_s=timeout)


def _labels(row: dict[str, Any], common: dict[str, str]) -> dict[str, Any]:
    return given(labels={**common, **row.get("labels", {})})


def _common_of(row: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    """Return what holds for a row that does not say otherwise itself."""
    own = "password" in row or "password_file" in row
    return {key: value for key, value in common.items() if not (own and key == "password")}


def _password(file: Path | None) -> str | None:
    if file is None:
        return None
    if str(file) == "-":
        asked: str = typer.prompt("password of the BMC", hide_input=True, err=True)
        return asked
    try:
        found = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"the password cannot be read from {file}: {why_unread(error)}", ExitCode.USAGE) from error
    if not found:
        raise CliError(f"the password cannot be read from {file}: it is empty", ExitCode.USAGE)
    return found


def _name_of(bmc: str) -> str:
    """Return a name for the machine of a BMC: the first part of a DNS name, "bmc-10-1-0-5" for an IP address."""
    return re.sub(r"^host-", "bmc-", name_for(urlsplit(bmc).hostname or bmc))


def _discovered(text: str, port: int | None, scheme: str, output: Format) -> list[dict[str, Any]]:
    """List what answers in a range, and return those that are not enrolled yet."""
    body = {"range": text, "scheme": scheme, **given(port=port)}
    found = session.api().post("machines/discover", body, timeout_s=300.0)
    if output in (Format.TABLE, Format.WIDE):
        show_list(found, "found", output)
    new = [{"name": _name_of(one["address"]), "bmc": one["address"]} for one in found if not one["machine"]]
    if found and not new:
        talk("all of them are enrolled already")
    return new


def _go_on(rows: list[dict[str, Any]], found: bool, dry_run: bool, yes: bool, output: Format) -> bool:
    """Say whether to enroll; what was discovered is enrolled when a person, or --yes, says so."""
    if dry_run or (found and not yes and not sys.stdin.isatty()):
        if output in (Format.TABLE, Format.WIDE) and not found:
            show_list(rows, "to-enroll", output)
        elif output not in (Format.TABLE, Format.WIDE):
            show_list([{key: row[key] for key in row if key != "password"} for row in rows], "to-enroll", output)
        said = f"{counted(len(rows), 'machine')} would be enrolled"
        talk(said if dry_run else f"{said}: nothing is enrolled without --yes")
        return False
    if found and not yes:
        typer.confirm(f"Enroll {counted(len(rows), 'machine')}?", abort=True, err=True)
    return True
