"""Tab completion of names: asked from the front-end with a short deadline; no answer means no names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from rackflow_cli.errors import CliError

_DEADLINE_S = 0.8


def names_of(plural: str) -> Callable[[str], list[tuple[str, str]]]:
    """Return a completer for the names of a noun (ids where it has none), each with its state as a hint."""
    field = "id" if plural in ("operations", "schedules", "drift", "plans") else "name"

    def complete(incomplete: str) -> list[tuple[str, str]]:
        from rackflow_cli.connection import Api
        from rackflow_cli.endpoint import find

        try:
            api = Api(find(), timeout_s=_DEADLINE_S)
            rows = api.get(plural, {"limit": 200}, timeout_s=_DEADLINE_S)
        except CliError:
            return []
        found = ((str(row[field]), f"{row.get('verb') or ''} {row.get('state') or ''}".strip()) for row in rows)
        return [(name, hint) for name, hint in found if name.startswith(incomplete)]

    return complete


def names_within(plural: str) -> Callable[[typer.Context, str], list[tuple[str, str]]]:
    """Return a completer for the names of what the instance named before has: snapshots, backups."""

    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        from rackflow_cli.connection import part

        instance = ctx.params.get("instance")
        return names_of(f"instances/{part(instance)}/{plural}")(incomplete) if instance else []

    return complete


def _argument(noun: str, help: str, *, many: bool = False) -> typer.models.ArgumentInfo:
    made: typer.models.ArgumentInfo = typer.Argument(
        metavar=noun.upper() + ("..." if many else ""), help=help, autocompletion=names_of(f"{noun}s"),
        show_default=False,
    )  # fmt: skip
    return made


def _option(flag: str, noun: str, help: str) -> typer.models.OptionInfo:
    made: typer.models.OptionInfo = typer.Option(
        flag, metavar=noun.upper(), help=help, autocompletion=names_of(f"{noun}s")
    )
    return made


InstanceName = Annotated[str, _argument("instance", "Name or id.")]
InstanceNames = Annotated[list[str], _argument("instance", "Names or ids.", many=True)]
HostName = Annotated[str, _argument("host", "Name or id.")]
HostNames = Annotated[list[str], _argument("host", "Names or ids.", many=True)]
SomeHosts = Annotated[list[str] | None, _argument("host", "Names; all hosts when none is given.", many=True)]
ImageName = Annotated[str, _argument("image", "Name or id.")]
ImageNames = Annotated[list[str], _argument("image", "Names or ids.", many=True)]
OperationId = Annotated[str, _argument("operation", "Id.")]
OperationIds = Annotated[list[str], _argument("operation", "Ids.", many=True)]
HostOption = Annotated[str | None, _option("--host", "host", "Only on that host.")]
ClusterOption = Annotated[str | None, _option("--cluster", "cluster", "In that cluster.")]
DatastoreOption = Annotated[str | None, _option("--datastore", "datastore", "On that datastore.")]
