"""The tree of commands: each first word is loaded from its own module when it is used, so that starting stays cheap."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from rackflow_cli.session import session

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@dataclass(frozen=True)
class Entry:
    """section: heading in the help; module: in rackflow_cli.commands; alone: a command, else a group of commands."""

    section: str
    module: str
    help: str
    alone: bool = False


NOUNS, FILES, LOOK, HERE = "Things", "Files", "Looking at the cloud", "On this machine"

TREE: dict[str, Entry] = {
    "instance": Entry(NOUNS, "instance", "VMs and containers: create, list, show, start, shutdown, migrate, delete, …"),
    "disk": Entry(NOUNS, "disk", "Disks of instances: attach, detach, grow, list."),
    "nic": Entry(NOUNS, "nic", "NICs of instances: attach, detach, list."),
    "snapshot": Entry(NOUNS, "snapshot", "Snapshots of instances: create, list, revert, delete."),
    "backup": Entry(NOUNS, "backup", "Backups of instances: create, list, restore, verify, delete."),
    "schedule": Entry(NOUNS, "schedule", "Verbs at a time: add, list, remove, enable, disable."),
    "host": Entry(NOUNS, "host", "Machines that run instances: enroll, list, show, drain, evacuate, adopt, retire, …"),
    "machine": Entry(NOUNS, "machine", "Machines with a BMC: list, show, inventory, checks, health, power, erase, …"),
    "image": Entry(NOUNS, "image", "What instances start from: import, stage, list, show, delete."),
    "network": Entry(NOUNS, "network", "Virtual networks: create, list, show, delete."),
    "datastore": Entry(NOUNS, "datastore", "Where disks and images lie: create, list, show, delete."),
    "cluster": Entry(NOUNS, "cluster", "Hosts that share datastores and networks: create, list, show, delete."),
    "driver": Entry(NOUNS, "driver", "How kinds of host are spoken to: list, show, test what a driver can do."),
    "reservation": Entry(NOUNS, "reservation", "Room kept for later, maintenances: create, list, show, delete."),
    "operation": Entry(NOUNS, "operation", "What was asked for and how far it is: list, show, watch, cancel, retry, …"),
    "enroll": Entry(FILES, "enroll", "Take machines in by their BMCs: one, a file, or what answers.", alone=True),
    "apply": Entry(FILES, "blueprint", "Make the cloud as a blueprint says.", alone=True),
    "plan": Entry(FILES, "plan", "Say what apply would do; moves between hosts: rebalance, consolidate, evacuate."),
    "delete": Entry(FILES, "blueprint", "Delete what a blueprint, or NOUN/NAME, names.", alone=True),
    "schema": Entry(FILES, "local", "Print the JSON Schema of a noun or of a whole blueprint.", alone=True),
    "console": Entry(LOOK, "console", "Sit at an instance's serial console, or open its screen.", alone=True),
    "explain": Entry(LOOK, "insight", "Say why an instance is where it is, or why nowhere.", alone=True),
    "history": Entry(LOOK, "history", "What happened to an instance; predictions, regressions, export of the history."),
    "top": Entry(LOOK, "top", "Show what hosts and instances use, and keep showing it.", alone=True),
    "capacity": Entry(LOOK, "insight", "Show what the hosts have, what is reserved and what is used.", alone=True),
    "query": Entry(LOOK, "insight", "Run one SELECT over the history.", alone=True),
    "simulate": Entry(LOOK, "simulate", "Replay arrivals on hosts: what fits, and by which policy best.", alone=True),
    "drift": Entry(LOOK, "drift", "Where the world differs from the record: list, show, set-policy."),
    "reconcile": Entry(LOOK, "insight", "Compare record and world now, and repair.", alone=True),
    "up": Entry(HERE, "local", "Start rackflow's processes.", alone=True),
    "down": Entry(HERE, "local", "Stop rackflow's processes.", alone=True),
    "status": Entry(HERE, "local", "Show rackflow's processes and addresses.", alone=True),
    "logs": Entry(HERE, "local", "Show the logs of rackflow's processes.", alone=True),
    "lab": Entry(HERE, "local", "A small data centre on this machine: up, down, status, crash, …", alone=True),
    "completion": Entry(HERE, "local", "Print the tab completion for a shell.", alone=True),
}


def _quiet(value: bool) -> bool:
    session.quiet = session.quiet or value
    return value


def _no_color(value: bool) -> bool:
    session.no_color = session.no_color or value
    return value


Quiet = Annotated[bool, typer.Option("-q", "--quiet", callback=_quiet, help="Say nothing but data and errors.")]
NoColor = Annotated[bool, typer.Option("--no-color", callback=_no_color, help="No colours (as NO_COLOR does).")]


def _common(quiet: Quiet = False, no_color: NoColor = False) -> None:
    """Carry the options that every command takes."""


def _common_params() -> list[Any]:
    holder = typer.Typer(add_completion=False)
    holder.command()(_common)
    params = get_command(holder).params
    for param in params:
        param.expose_value = False
    return params


def _first_sentence(help: str) -> str:
    """Return what stands in a list of commands; where it is not given, it would be cut in the middle."""
    line = " ".join(help.split("\n\n")[0].split())
    return re.split(r"(?<=[^.…])\. |[;:] ", line)[0].rstrip(".") + "."


def load(name: str) -> TyperCommand | TyperGroup:
    """Return the command or group of a first word. Raise KeyError."""
    entry = TREE[name]
    group = get_group(import_module(f"rackflow_cli.commands.{entry.module}").app)
    found: Any = group.commands[name] if entry.alone else group
    found.name, found.help, found.short_help = name, found.help or entry.help, entry.help
    for leaf in [found] if entry.alone else list(group.commands.values()):
        leaf.context_settings = {**CONTEXT, **leaf.context_settings}
        leaf.short_help = leaf.short_help or _first_sentence(leaf.help or "")
        if leaf.add_help_option:
            leaf.params = [*leaf.params, *_common_params()]
    found.context_settings = {**CONTEXT, **found.context_settings}
    return found  # type: ignore[no-any-return]


class LazyGroup(TyperGroup):
    """The root: knows all first words and their help, and loads the one that is used."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = {name: TyperCommand(name, help=entry.help) for name, entry in TREE.items()}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the loaded command, None for a word that is not known."""
        return load(cmd_name) if cmd_name in TREE else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the first words under their headings, without loading them."""
        for section in dict.fromkeys(entry.section for entry in TREE.values()):
            with formatter.section(section):
                formatter.write_dl([(n, e.help) for n, e in TREE.items() if e.section == section])


def root(callback: Callable[..., Any]) -> Any:
    """Return the whole tree with the root's own options."""
    app = typer.Typer(
        cls=LazyGroup, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
        no_args_is_help=True, context_settings=CONTEXT,
    )  # fmt: skip
    app.callback()(callback)
    return get_group(app)


def group(help: str) -> typer.Typer:
    """Return a module's application: a noun's group, or a holder of commands."""
    return typer.Typer(help=help, rich_markup_mode=None, no_args_is_help=True, add_completion=False)


def shorthand(help: str, verb: str) -> typer.Typer:
    """Return a noun's group in which a first word that is no verb is what `verb` is about."""

    class Shorthand(TyperGroup):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            """Put the verb first where there is none."""
            plain = bool(args) and args[0] not in (*self.commands, "-h", "--help")
            return super().parse_args(ctx, [verb, *args] if plain else args)

    return typer.Typer(cls=Shorthand, help=help, rich_markup_mode=None, no_args_is_help=True, add_completion=False)


def leaves() -> Mapping[str, Any]:
    """Return every command by its full name, e.g. "instance list" (documentation, tests)."""
    found: dict[str, Any] = {}
    for name, entry in TREE.items():
        command = load(name)
        commands = {} if entry.alone else getattr(command, "commands", {})
        found.update({f"{name} {verb}": leaf for verb, leaf in commands.items()} or {name: command})
    return found
