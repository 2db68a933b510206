"""Operations: follow them to their end, and turn how they ended into words and an exit code."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer

from rackflow_cli.connection import Api
from rackflow_cli.errors import CliError, ExitCode, from_operation
from rackflow_cli.output import Format, show_list, show_one
from rackflow_cli.progress import Reporter, reporter_for
from rackflow_cli.session import complain, session, talk
from rackflow_cli.words import counted, seconds_between

Operation = Mapping[str, Any]

UNFINISHED = {"pending", "running", "compensating"}
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.15, 1.0
_PATIENCE_S = 30.0  # with a front-end that does not answer, e.g. while it is started again
_IDS_AT_ONCE = 100
_COMPLAINTS = 5
_FEW = 3  # ids in one line
_COPYING = ("image", "copy")  # steps that may wait for a copy of an image
_SLOW_COPY_S = 1.0
_SLOW_S = 2.0


def follow(api: Api, operations: Sequence[Operation], timeout_s: float, reporter: Reporter) -> list[Operation]:
    """Wait until all have ended, and return them with their steps. Raise CliError (timed out)."""
    known: dict[str, Operation] = {str(op["id"]): op for op in operations}
    begun, pause_s = time.monotonic(), _FIRST_LOOK_S
    with reporter:
        while True:
            open_ids = [key for key, op in known.items() if op.get("state") in UNFINISHED or "steps" not in op]
            known.update({str(op["id"]): op for op in _look(api, open_ids, reporter)})
            reporter.update(list(known.values()))
            left = [op for op in known.values() if op["state"] in UNFINISHED]
            if not left:
                return list(known.values())
            if time.monotonic() - begun >= timeout_s:
                raise _too_late(left, timeout_s)
            time.sleep(min(pause_s, max(timeout_s - (time.monotonic() - begun), 0.01)))
            pause_s = min(pause_s * 1.15, _LONGEST_LOOK_S)


def _look(api: Api, ids: Sequence[str], reporter: Reporter) -> list[Operation]:
    begun = time.monotonic()
    while True:
        try:
            found = [op for at in range(0, len(ids), _IDS_AT_ONCE) for op in read(api, ids[at : at + _IDS_AT_ONCE])]
            _add_shares(api, found)
            _add_eta(api, found)
            return list(found)
        except CliError as error:
            if error.code is not ExitCode.UNREACHABLE or time.monotonic() - begun > _PATIENCE_S:
                raise
            reporter.say("the front-end does not answer; trying again")
            time.sleep(_LONGEST_LOOK_S)


def _add_shares(api: Api, operations: Sequence[dict[str, Any]]) -> None:
    """Note how far copies of images are, in the steps that wait for them: the record has that with the images."""
    steps = [s for op in operations for s in op.get("steps", ()) if s["state"] == "running" and s["name"] in _COPYING]
    if not any((seconds_between(step.get("started_at"), None) or 0) > _SLOW_COPY_S for step in steps):
        return
    try:
        images = api.items("images")
    except CliError:  # shares are a nicety
        return
    for image in images:
        for copy in image.get("copies") or ():
            if copy["state"] == "copying":
                share = {"bytes_done": copy["bytes_done"], "bytes_total": image["size_bytes"]}
                for step in (s for s in steps if s["host"] == copy["host"]):
                    step["evidence"] = {**(step.get("evidence") or {}), **share}


def _add_eta(api: Api, operations: Sequence[dict[str, Any]]) -> None:
    """Note how much longer those will take that have been at it for a while, by what such steps usually take."""
    slow = [op for op in operations if (seconds_between(op.get("started_at"), op.get("finished_at")) or 0) > _SLOW_S]
    ids = [op["id"] for op in slow if op["state"] == "running"]
    if not ids:
        return
    try:
        told = {row["id"]: row["left_s"] for row in api.get("operations/eta", {"ids": ",".join(ids)})}
    except CliError:  # so is this
        return
    for op in slow:
        op["left_s"] = told.get(op["id"])


def read(api: Api, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return operations with their steps, in the order of the ids."""
    found = {op["id"]: op for op in api.items("operations", {"ids": ",".join(ids), "steps": "true"})}
    return [found[key] for key in ids if key in found]


def _too_late(left: Sequence[Operation], timeout_s: float) -> CliError:
    reason = next((op["reason"] for op in left if op.get("reason")), "")
    said = f"not done after {timeout_s:g} s: {counted(len(left), 'operation')} still going on"
    return CliError(
        said + (f" ({reason})" if reason else ""),
        ExitCode.TIMED_OUT,
        fix=f"nothing is lost: {_later(left, 'goes on waiting')}",
    )


def _later(operations: Sequence[Operation], watching: str) -> str:
    """Say how to go on with operations that nobody waits for any more."""
    if len(operations) > _FEW:
        return "`rackflow operation list` shows them, `rackflow operation cancel ID` ends one"
    ids = " ".join(str(op["id"]) for op in operations)
    return f"`rackflow operation watch {ids}` {watching}, `… cancel {ids}` ends it"


def settle(operations: Sequence[Operation]) -> ExitCode:
    """Complain about each operation that did not end well, and return the exit code for all."""
    failed = [from_operation(op) for op in operations if op["state"] != "done"]
    for error in failed[:_COMPLAINTS]:
        complain(error)
    if len(failed) > _COMPLAINTS:
        talk(f"… and {len(failed) - _COMPLAINTS} more of {len(operations)} failed")
    return exit_code(operations)


def exit_code(operations: Sequence[Operation]) -> ExitCode:
    """Return the exit code for all: of failures of one kind that kind's."""
    codes = {from_operation(op).code for op in operations if op["state"] != "done"}
    return ExitCode.DONE if not codes else codes.pop() if len(codes) == 1 else ExitCode.FAILED


def watch(operations: Sequence[Operation], timeout_s: float) -> list[Operation]:
    """Follow operations with live progress; on Ctrl-C say that they go on."""
    try:
        return follow(session.api(), operations, timeout_s, reporter_for(operations))
    except KeyboardInterrupt:
        talk(f"it goes on without you; {_later(operations, 'shows it')}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def carry_out(
    answer: Mapping[str, Any],
    form: Format,
    *,
    wait: bool,
    timeout_s: float,
    then: Callable[[], None] | None = None,
) -> None:
    """See an accepted request through.

    Waiting: progress, then `then` prints what came of it (without `then`: the operations, unless a table was asked).
    Not waiting: print the operations. Raise typer.Exit with the code when one did not end well.
    """  # fmt: skip
    operations: list[Operation] = list(answer.get("operations") or [])
    if not wait:
        show_list(operations, "operation", form)
        return
    ended = watch(operations, timeout_s) if operations else []
    code = settle(ended)
    if then is not None and code is ExitCode.DONE:
        then()
    elif then is None and form not in (Format.TABLE, Format.WIDE):
        show_list(ended, "operation", form)
    if code is not ExitCode.DONE:
        raise typer.Exit(code)


def show_again(noun: str, names: Sequence[str], form: Format, *, alone: bool) -> None:
    """Print things as they stand now; alone: one of them, as an object."""
    from rackflow_cli.connection import part

    api = session.api()
    rows = [api.get(f"{noun}s/{part(name)}") for name in names]
    if not alone or form in (Format.TABLE, Format.WIDE):
        show_list(rows, noun, form)
    else:
        show_one(rows[0], noun, form)
