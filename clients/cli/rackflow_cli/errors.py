"""What can go wrong for a command, as exit codes and words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """The command line's promise to scripts."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    CONFLICT = 5
    NO_CAPACITY = 6
    TIMED_OUT = 7
    UNREACHABLE = 8
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it


BY_CODE = {  # of an error, in an answer or in the ledger; others count as FAILED
    "not-found": ExitCode.NOT_FOUND,
    "denied": ExitCode.DENIED,
    "conflict": ExitCode.CONFLICT,
    "no-fit": ExitCode.NO_CAPACITY,
    "no-capacity-now": ExitCode.NO_CAPACITY,
}
BY_STATUS = {  # where an answer carries no code that says more
    400: ExitCode.USAGE,
    401: ExitCode.DENIED,
    403: ExitCode.DENIED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    422: ExitCode.USAGE,
}
_OWN_409 = {"host-fault", "drift", "credential-rejected", "needs-operator"}  # 409 in HTTP, yet no conflict
_FOR_PROGRAMS = ("decision", "change")  # of evidence: an id, and what `fix` says in words
_MOST_LINES = 12
_MOST_ERRORS = 200  # of a file: whoever corrects it wants to see them all
_MOST_LETTERS = 200


class CliError(Exception):
    """message: what went wrong; fix: what to do next; evidence: what was seen, JSON-ready."""

    def __init__(
        self,
        message: str,
        code: ExitCode = ExitCode.FAILED,
        *,
        fix: str = "",
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.code, self.fix, self.evidence = message, code, fix, dict(evidence or {})


def why_unread(error: Exception) -> str:
    """Say why a file could not be read, without the library's numbers."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return str(getattr(error, "strerror", None) or error)


class NotFoundError(CliError):
    """There is no such thing."""


def from_problem(status: int, problem: Any) -> CliError:
    """Turn an answer that is no success (problem+json, or whatever came) into an error."""
    said = problem if isinstance(problem, Mapping) else {}
    kind = str(said.get("code") or "")
    code = ExitCode.FAILED if kind in _OWN_409 else BY_CODE.get(kind, BY_STATUS.get(status, ExitCode.FAILED))
    message = said.get("message") or said.get("detail") or said.get("title")
    evidence = said.get("evidence")
    if isinstance(message, list):  # a framework's own list of what it did not like
        evidence, message = {"errors": message}, "the request is not valid"
    made = NotFoundError if code is ExitCode.NOT_FOUND else CliError
    return made(
        str(message or f"the front-end answered with HTTP status {status}"), code,
        fix=str(said.get("fix") or ""), evidence=evidence if isinstance(evidence, Mapping) else None,
    )  # fmt: skip


def from_operation(operation: Mapping[str, Any]) -> CliError:
    """Turn an operation that ended other than done into an error."""
    error = operation.get("error") or {}
    what = f"{operation.get('verb')} {operation.get('name') or operation.get('subject')}"
    said = error.get("message") or operation.get("reason") or f"it ended {operation.get('state')}"
    code = BY_CODE.get(str(error.get("code")), ExitCode.FAILED)
    return CliError(f"{what}: {said}", code, fix=error.get("fix") or "", evidence=error.get("evidence"))


def evidence_lines(evidence: Mapping[str, Any], message: str = "") -> list[str]:
    """Return what was seen, in a few short lines, without those that only repeat the message."""
    lines = [line for key, value in evidence.items() if not _said(value, message) for line in _lines(key, value)]
    lines = [line for line in lines if line not in message]
    of_file = any(isinstance(one, Mapping) and one.get("line") for one in evidence.get("errors") or ())
    most = _MOST_ERRORS if of_file else _MOST_LINES
    left = len(lines) - most
    return lines if left <= 1 else [*lines[:most], f"… and {left} lines more (-o json shows all)"]


def _said(value: Any, message: str) -> bool:
    """Tell whether a message has a word of the evidence already; a number may be there by chance."""
    if not isinstance(value, str) or value.isdigit():
        return False
    return re.search(rf"(?<![\w-]){re.escape(value)}(?![\w-])", message) is not None


def _lines(key: str, value: Any) -> Iterator[str]:
    if value is None or value in ("", [], {}) or key in _FOR_PROGRAMS:
        return
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, Mapping) for v in value):
        yield from (place_and_words(entry) for entry in value)
    elif isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values()):
        yield from (f"{name}: {_short(inner)}" for name, inner in value.items())
    else:
        yield f"{key.replace('_', ' ')}: {_short(value)}"


def place_and_words(entry: Mapping[str, Any]) -> str:
    """Return "file:line: field: message" for an error of a file, "host: constraint: reason" for one of placement."""
    if "host" in entry and "reason" in entry:
        return ": ".join(str(entry[part]) for part in ("host", "constraint", "reason") if entry.get(part))
    if "message" not in entry and "msg" not in entry:
        return _short(entry)
    place = ":".join(str(entry[part]) for part in ("file", "line") if entry.get(part))
    where = entry.get("field") or ".".join(str(part) for part in entry.get("loc", ()))
    return ": ".join(str(part) for part in (place, where, entry.get("message") or entry.get("msg")) if part)


def _short(value: Any) -> str:
    if isinstance(value, str):
        said = value
    elif isinstance(value, Mapping):
        said = ", ".join(f"{k.replace('_', ' ')} {_short(v)}" for k, v in value.items() if v not in (None, "", [], {}))
    elif isinstance(value, Sequence) and all(isinstance(v, str | int | float) for v in value):
        said = ", ".join(str(v) for v in value)
    else:
        said = json.dumps(value, ensure_ascii=False)
    return said if len(said) <= _MOST_LETTERS else said[: _MOST_LETTERS - 1] + "…"
