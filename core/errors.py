"""The error tree: three kinds (retry, give up, ask the operator), each with a stable code.

Drivers translate their library's errors into these at their edge; `tasks/retry.py` is the only place
that decides what to do about one; the API turns `http_status`, the CLI `exit_code`, into an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(eq=False)
class RackflowError(Exception):
    """What failed, on what, what was seen, what to do.

    message: one sentence; subject: "host/h1", "instance/web-1", …; evidence: JSON-ready facts; fix: next step.
    """

    message: str
    subject: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    fix: str = ""

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    safe_to_retry: ClassVar[bool] = False

    def __str__(self) -> str:
        return self.message if not self.fix else f"{self.message} ({self.fix})"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form stored in the ledger and sent by the API."""
        return {
            "code": self.code,
            "message": self.message,
            "subject": self.subject or None,
            "evidence": self.evidence,
            "fix": self.fix or None,
            "safe_to_retry": self.safe_to_retry,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.message, self.subject, self.evidence, self.fix))


class Retryable(RackflowError):
    """The same step may succeed later or elsewhere."""

    code = "retryable"
    http_status = 503
    safe_to_retry = True


class Unreachable(Retryable):
    """The host, BMC or service did not answer."""

    code = "unreachable"


class Busy(Retryable):
    """Somebody else holds what the step needs."""

    code = "busy"


class NoCapacityNow(Retryable):
    """It would fit this cloud, but not at this moment."""

    code = "no-capacity-now"
    exit_code = 6


class Permanent(RackflowError):
    """Trying again cannot help: compensate and tell the caller."""

    code = "permanent"
    http_status = 400


class Invalid(Permanent):
    """The request itself is wrong."""

    code = "invalid"
    http_status = 400
    exit_code = 2


class NoFit(Invalid):
    """No enabled host of this cloud could ever hold the instance."""

    code = "no-fit"
    http_status = 409
    exit_code = 6


class Denied(Permanent):
    """Not allowed: access rule or quota."""

    code = "denied"
    http_status = 403
    exit_code = 4


class NotFound(Permanent):
    """There is no such thing."""

    code = "not-found"
    http_status = 404
    exit_code = 3


def no_such(noun: str, *names: str) -> NotFound:
    """Return the error for names of a noun that are not there; `rackflow NOUN list` has to be a command."""
    said = f"there is no {noun} {names[0]}" + (f", and {len(names) - 1} more" if names[1:] else "")
    seen = {"missing": list(names)} if names[1:] else {}
    return NotFound(said, f"{noun}/{names[0]}", seen, f"rackflow {noun} list shows them")


class Conflict(Permanent):
    """It clashes with what exists or runs already."""

    code = "conflict"
    http_status = 409
    exit_code = 5


class Cancelled(Permanent):
    """Somebody does not want it any more."""

    code = "cancelled"
    http_status = 409
    exit_code = 5


class Unsupported(Permanent):
    """The driver or this version cannot do that."""

    code = "unsupported"
    http_status = 501


class NeedsOperator(RackflowError):
    """Only a person can decide: hold, mark, explain."""

    code = "needs-operator"
    http_status = 409


class HostFault(NeedsOperator):
    """The host is broken, full, or lacks what it needs."""

    code = "host-fault"


class Drift(NeedsOperator):
    """The world differs from the record in a way that must not be overwritten."""

    code = "drift"


class CredentialRejected(NeedsOperator):
    """A key, password or pinned host key did not match."""

    code = "credential-rejected"


def _walk(cls: type[RackflowError]) -> dict[str, type[RackflowError]]:
    found = {cls.code: cls}
    for sub in cls.__subclasses__():
        found.update(_walk(sub))
    return found


def from_dict(data: dict[str, Any]) -> RackflowError:
    """Rebuild an error from `to_dict` (ledger, API); an unknown code becomes a plain RackflowError."""
    cls = _walk(RackflowError).get(str(data.get("code")), RackflowError)
    return cls(
        str(data.get("message", "")),
        str(data.get("subject") or ""),
        dict(data.get("evidence") or {}),
        str(data.get("fix") or ""),
    )
