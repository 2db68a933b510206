"""rackflow machine …"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rackflow_cli import enrolling
from rackflow_cli.commands.common import agreed
from rackflow_cli.commands.machine_looks import add_looks
from rackflow_cli.connection import part
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.machines import MachineName, MachineNames, summary
from rackflow_cli.operations import carry_out
from rackflow_cli.options import WAIT_TIMEOUT_S, Output, Timeout, Wait
from rackflow_cli.output import Format, show_list, show_one
from rackflow_cli.session import session, talk
from rackflow_cli.tree import group

app = group("Machines with a BMC, whatever runs on them.")
add_looks(app)

STATES = ("enrolling", "ready", "faulty")
POWER = {"on": "power-on", "off": "power-off", "cut": "power-cut", "reset": "reset"}
Force = Annotated[bool, typer.Option("--force", help="Even if it is a host that holds instances.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_(
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Only in that state.", autocompletion=lambda: list(STATES))
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """List the machines."""
    show_list(session.api().items("machines", {"state": state}), "machine", output)


@app.command()
def show(name: MachineName, output: Output = Format.TABLE) -> None:
    """Show one machine: its BMC, what the rules made of it, its checks and its last inventory."""
    found = session.api().get(f"machines/{part(name)}")
    if output not in (Format.TABLE, Format.WIDE):
        show_one(found, "machine", output)
        return
    fields = {key: value for key, value in found.items() if key not in ("inventory", "checks")}
    show_one({**fields, **summary(found["inventory"]), "checks": []}, "machine", output, {"checks": found["checks"]})


def _change(names: list[str], action: str, output: Format, wait: bool, timeout_s: float, force: bool = False) -> None:
    answer = session.api().post("machines/change", {"machines": names, "action": action, "force": force})
    carry_out(answer, output, wait=wait, timeout_s=timeout_s)


@app.command()
def power(
    change: Annotated[
        str,
        typer.Argument(
            metavar="|".join(POWER), help="off asks the operating system, cut does not.", show_default=False,
            autocompletion=lambda: list(POWER),
        ),
    ],
    names: MachineNames,
    force: Force = False,
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """Put machines on or off by their BMCs."""
    if change not in POWER:
        raise CliError(f"there is no power {change!r}", ExitCode.USAGE, fix=f"one of {', '.join(POWER)}")
    if change in ("cut", "reset"):
        agreed(f"{change.capitalize()} the power of {', '.join(names)}?", yes)
    _change(names, POWER[change], output, wait, timeout, force)


@app.command()
def led(
    state: Annotated[
        str, typer.Argument(metavar="on|off", show_default=False, autocompletion=lambda: ["on", "off"])
    ],
    names: MachineNames,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Let the identify LEDs of machines blink, so that a person finds them, or no more."""
    if state not in ("on", "off"):
        raise CliError(f"an LED is on or off, not {state!r}", ExitCode.USAGE)
    _change(names, f"led-{state}", output, wait, timeout)


@app.command()
def rescue(
    names: MachineNames,
    force: Force = False,
    yes: Yes = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_TIMEOUT_S,
    output: Output = Format.TABLE,
) -> None:
    """Start machines from the network, this once: into a ramdisk, say. `power reset` starts their disks again."""
    agreed(f"Restart {', '.join(names)} from the network?", yes)
    _change(names, "rescue", output, wait, timeout, force)


@app.command()
def erase(
    names: MachineNames, yes: Yes = False, wait: Wait = True, timeout: Timeout = 86400.0, output: Output = Format.TABLE
) -> None:
    """Wipe all disks of machines, so that nothing can be read from them any more; not of hosts."""
    agreed(f"Wipe ALL disks of {', '.join(names)}? What is on them is lost.", yes, said=True)
    _change(names, "erase", output, wait, timeout)


@app.command()
def reinspect(
    names: MachineNames, wait: Wait = True, timeout: Timeout = WAIT_TIMEOUT_S, output: Output = Format.TABLE
) -> None:
    """Inspect, classify and check machines again, and show what changed since the last time."""
    operations = session.api().post("machines/look", {"machines": names})["operations"]
    try:
        enrolling.see_through(operations, names, output, wait=wait, timeout_s=timeout)
    finally:
        if wait and output in (Format.TABLE, Format.WIDE):
            enrolling.changes(names, output)


@app.command()
def proposals(output: Output = Format.TABLE) -> None:
    """Say which clusters may run out within 30 days, and which spare machine would help."""
    show_list(session.api().get("machines/proposals"), "proposal", output)


@app.command()
def commission(
    names: MachineNames, wait: Wait = True, timeout: Timeout = 4 * 3600.0, output: Output = Format.TABLE
) -> None:
    """Make hosts of spare machines, as their specs say."""
    operations = session.api().post("machines/commission", {"machines": names})["operations"]
    enrolling.see_through(operations, names, output, wait=wait, timeout_s=timeout)


@app.command()
def retire(names: MachineNames, yes: Yes = False, output: Output = Format.TABLE) -> None:
    """Forget how to reach machines: name, BMC and serial are free again; their inspections stay."""
    agreed(f"Retire {', '.join(names)}?", yes)
    gone: list[dict[str, Any]] = []
    for name in names:
        gone.append(session.api().delete(f"machines/{part(name)}"))
        talk(f"machine {name} retired")
    if output not in (Format.TABLE, Format.WIDE):
        show_list(gone, "machine", output)
