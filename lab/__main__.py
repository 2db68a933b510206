"""python -m lab: the lab's command line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from core.errors import NeedsOperator, RackflowError
from lab import centre, delay, faults, hosts, images, leftovers, preflight, vsphere
from lab.baremetal import room
from lab.settings import LabSettings, load
from lab.topology import LabHost, read

app = typer.Typer(
    help="A real multi-host data centre on this machine: hosts with their own sshd, libvirtd or LXD.",
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
HostName = Annotated[str, typer.Argument(metavar="HOST", help="h1, h2, …")]


def say(text: str) -> None:
    """Print progress for people; results go to standard output."""
    typer.echo(f"[lab] {text}", err=True)


def _require(**what: Any) -> None:
    missing = preflight.problems(**what)
    if missing:
        raise NeedsOperator("the lab cannot run here: " + "; ".join(map(str, missing)), "lab")


def _host(settings: LabSettings, name: str) -> LabHost:
    return read(settings).host(name)


@app.command()
def up(kinds: Annotated[list[str], typer.Argument(metavar="KIND:N", help="e.g. kvm:2 lxd:2")]) -> None:
    """Make and boot hosts h1, h2, …; write LAB_DIR/lab.yaml for `rackflow apply -f`."""
    settings = load()
    _require()
    with centre.exclusive():
        if images.build(settings, "tiny"):
            say("guest images built")
        changed = centre.up(settings, kinds, say)
    say(f"{'up' if changed else 'is up already'}: {settings.dir / 'lab.yaml'}")


@app.command("vsphere")
def vsphere_command() -> None:
    """Add a VMware host to the lab, a simulated one; write LAB_DIR/vsphere.yaml. It goes with `down`."""
    settings = load()
    with centre.exclusive():
        changed = vsphere.start(settings)
    say(f"{'up' if changed else 'is up already'}: {vsphere.blueprint(settings)}")


@app.command()
def down() -> None:
    """Remove everything the lab made."""
    _require_root()
    with centre.exclusive():
        centre.down(load())
    say("down")


@app.command()
def status(output: Annotated[str, typer.Option("--output", "-o", help="table or json")] = "table") -> None:
    """Show the hosts."""
    rows = centre.status(load())
    if output == "json":
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        late = f"  delay {row['delay_ms']:g} ms" if row["delay_ms"] else ""
        known = f"{row['name']:4} {row['kind']:4} {row['state']:5} {row['address']:15}"
        typer.echo(f"{known} pid {row['pid'] or '-'}{late}")


@app.command()
def crash(host: HostName) -> None:
    """Cut a host's power."""
    _require_root()
    settings = load()
    with centre.exclusive():
        changed = centre.crash(settings, _host(settings, host))
    say(f"{host} {'is off' if changed else 'was off already'}")


@app.command()
def start(host: HostName) -> None:
    """Boot a host from its disk."""
    _require_root()
    settings = load()
    with centre.exclusive():
        changed = centre.start(settings, _host(settings, host))
    say(f"{host} {'is up' if changed else 'was up already'}")


@app.command(context_settings={"ignore_unknown_options": True})
def ssh(host: HostName, command: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Open a shell on a host, or run a command there."""
    settings = load()
    argv = hosts.ssh_command(settings, _host(settings, host), command or [])
    os.execvp(argv[0], argv)


@app.command("delay")
def delay_command(
    host: HostName,
    one_way_ms: Annotated[float, typer.Argument(metavar="MS", min=0, help="in each direction; 0 takes it away")],
    loss: Annotated[float, typer.Option(min=0, max=100, help="percent of the frames")] = 0,
    rate: Annotated[float, typer.Option(min=0, help="kbit/s; 0: no limit")] = 0,
) -> None:
    """Put a long line between this machine and a host."""
    _require_root()
    settings = load()
    with centre.exclusive():
        delay.set_delay(settings, _host(settings, host), one_way_ms, loss, rate)
    say(f"{host}: {one_way_ms:g} ms each way")


def _fault(word: str, help: str, done: str, was: str, change: Callable[..., bool], off: bool) -> None:
    @app.command(word, help=help)
    def put(host: HostName) -> None:
        _require_root()
        settings = load()
        with centre.exclusive():
            changed = change(_host(settings, host), off=off)
        say(f"{host} {done if changed else was}")


_fault("cut", "Take a host off the management network; its VMs run on.", "is cut off", "was cut off already",
       faults.cut, True)  # fmt: skip
_fault("join", "Let a host that was cut off be reached again.", "is reached again", "was not cut off",
       faults.cut, False)  # fmt: skip
_fault("freeze", "Let a host hang: it takes connections and never answers.", "hangs", "did hang already",
       faults.freeze, True)  # fmt: skip
_fault("thaw", "Let a host that hangs go on.", "goes on", "did not hang", faults.freeze, False)


@app.command("images")
def images_command(
    name: Annotated[str, typer.Argument(help="tiny, ramdisk (seconds), debian, hypervisor, agent (minutes)")] = "tiny",
) -> None:
    """Build guest images into the cache, if they are not there."""
    _require_root()
    if name not in images.RECIPES:
        raise typer.BadParameter(f"{name!r} is none of: {', '.join(images.RECIPES)}")
    settings = load()
    built = images.build(settings, name)
    if built:
        centre.refresh_blueprint(settings)
        say(f"guest images built: {name}")
    for recipe in images.RECIPES[name]:
        for file in recipe.files:
            typer.echo(str(images.image_path(settings, file)))


@app.command()
def baremetal(
    verb: Annotated[str, typer.Argument(metavar="up|down", help="servers that are off, with empty disks and BMCs")],
    servers: Annotated[int, typer.Option(min=1, max=20)] = 1,
    role: Annotated[str, typer.Option(metavar="lxd|kvm", help="what they are to become; left open by default")] = "",
) -> None:
    """Start or end a machine room: servers with BMCs, the network they boot from, Ironic and Inspector.

    What `up` prints is what `rackflow enroll` takes; the servers are named s1, s2, …
    """
    _require_root()
    settings = load()
    if role not in ("", "lxd", "kvm"):
        raise typer.BadParameter(f"{role!r} is neither lxd nor kvm")
    if verb == "up":
        typer.echo(room.up(settings, servers, role).read_text(), nl=False)
    elif verb == "down":
        say(f"the machine room {'is down' if room.down(settings) else 'was not up'}")
    else:
        raise typer.BadParameter(f"{verb!r} is neither up nor down")


@app.command()
def check() -> None:
    """Prove that nothing of a lab is on this machine; else list it and exit with 1."""
    found = leftovers.find(load())
    for thing in found:
        typer.echo(str(thing))
    if found:
        raise typer.Exit(1)
    say("nothing is left")


@app.command("preflight")
def preflight_command(
    packages: Annotated[bool, typer.Option(help="look for Debian packages too")] = True,
    port: Annotated[list[int] | None, typer.Option(help="must be free on 127.0.0.1")] = None,
) -> None:
    """Say what this machine lacks for the lab."""
    found = preflight.problems(packages=packages, ports=port or ())
    for problem in found:
        typer.echo(f"missing: {problem}", err=True)
    raise typer.Exit(1 if found else 0)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise NeedsOperator("the lab's hosts belong to root", "lab", fix="run it as root (sudo)")


def main() -> None:
    """Run a command; one of our errors becomes one line and its exit code."""
    try:
        app(prog_name="rackflow lab")
    except RackflowError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
