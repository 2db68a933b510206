"""Verbs on instances as commands: made out of a table, so that all ask, wait, print and fail alike."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from rackflow_cli.commands.common import agreed
from rackflow_cli.connection import part
from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.names import InstanceName, InstanceNames
from rackflow_cli.operations import carry_out, show_again
from rackflow_cli.options import WAIT_TIMEOUT_S, Output, Timeout, Wait, given
from rackflow_cli.output import Format, show_list
from rackflow_cli.session import complain, session

Body = Callable[[Mapping[str, Any]], dict[str, Any]]
Grace = Annotated[
    float | None, typer.Option("--grace", min=0, metavar="SECONDS", help="Time to shut down before it is cut off.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_RANGE = re.compile(r"(.*)\[([0-9]+)-([0-9]+)\](.*)")
_MOST = 10_000


@dataclass(frozen=True)
class Param:
    """An argument (without a default) or option. name: of the field in the request."""

    name: str
    kind: Any
    default: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class Word:
    """A command. verb: of the API, "" = the word. ask: what is asked before something is lost, with {names} and fields.

    many: it takes several names. shows: what is printed at the end, "" = the instances, or a list that each has.
    """

    word: str
    help: str
    params: tuple[Param, ...] = ()
    verb: str = ""
    ask: str = ""
    many: bool = True
    body: Body = lambda values: given(**values)
    shows: str = ""


GRACE = Param("grace_s", Grace, None)


def add(app: typer.Typer, words: Sequence[Word]) -> None:
    """Make the commands of words."""
    for word in words:
        app.command(word.word, help=word.help)(_command(word))


def _command(word: Word) -> Callable[..., None]:
    def command(**values: Any) -> None:
        wait, timeout, output = (values.pop(name) for name in ("wait", "timeout", "output"))
        names = expanded(values.pop("instances") if word.many else [values.pop("instance")])
        if word.ask:
            agreed(word.ask.format(names=", ".join(names), **values), values.pop("yes"))
        ask_each(word.verb or word.word, names, word.body(values), wait, timeout, output, word.shows)

    # typer reads the signature
    command.__signature__ = inspect.Signature(list(_parameters(word)))  # type: ignore[attr-defined]
    return command


def _parameters(word: Word) -> Iterator[inspect.Parameter]:
    first = Param("instances", InstanceNames) if word.many else Param("instance", InstanceName)
    asking = (Param("yes", Yes, False),) if word.ask else ()
    last = (Param("wait", Wait, True), Param("timeout", Timeout, WAIT_TIMEOUT_S), Param("output", Output, Format.TABLE))
    for one in (first, *word.params, *asking, *last):
        yield inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, annotation=one.kind, default=one.default)


def expanded(names: Sequence[str]) -> list[str]:
    """Return names with ranges spelled out: job-[1-3] is job-1, job-2, job-3. Raise CliError (usage)."""
    found: list[str] = []
    for name in names:
        match = _RANGE.fullmatch(name)
        if match is None:
            found.append(name)
            continue
        first, last = int(match[2]), int(match[3])
        if not first <= last < first + _MOST:
            raise CliError(f"{name}: {first}-{last} is not a range", ExitCode.USAGE, fix=f"at most {_MOST}, upwards")
        found += [f"{match[1]}{number}{match[4]}" for number in range(first, last + 1)]
    return list(dict.fromkeys(found))


def ask_each(
    verb: str, names: Sequence[str], body: Mapping[str, Any], wait: bool, timeout_s: float, output: Format,
    shows: str = "",
) -> None:  # fmt: skip
    """Ask for a verb on each instance and see it through. What is refused is told and does not stop the others."""
    operations, refused = _asked(verb, names, body)
    if refused and not operations:
        for error in refused[1:]:
            complain(error)
        raise refused[0]
    for error in refused:
        complain(error)
    renamed = [str(body["name"])] if "name" in body else names
    then = None if verb == "delete" or refused else lambda: _show(renamed, output, shows)
    carry_out({"operations": operations}, output, wait=wait, timeout_s=timeout_s, then=then)
    if refused:
        raise typer.Exit(refused[0].code)


def _asked(
    verb: str, names: Sequence[str], body: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[CliError]]:
    api = session.api()
    operations: list[dict[str, Any]] = []
    refused: list[CliError] = []
    for name in names:
        path = f"instances/{part(name)}"
        try:
            answer = api.delete(path, body) if verb == "delete" else api.post(f"{path}/{verb}", dict(body))
            operations += answer["operations"]
        except CliError as error:
            refused.append(error)
    return operations, refused


def _show(names: Sequence[str], output: Format, shows: str) -> None:
    if not shows:
        show_again("instance", names, output, alone=len(names) == 1)
        return
    rows = [row for name in names for row in session.api().get(f"instances/{part(name)}/{shows}")]
    show_list(rows, shows.removesuffix("s"), output)
