"""pylxd's and requests' errors to ours: the one place. LXD 5.0 tells kinds apart by words, hence the table."""

from __future__ import annotations

import re

import requests
from pylxd.exceptions import ClientConnectionFailed, LXDAPIException

from core.errors import (
    Busy,
    Conflict,
    CredentialRejected,
    HostFault,
    Invalid,
    NotFound,
    RackflowError,
    Unreachable,
    Unsupported,
)

# LXD's words (seen with 5.0.2), and its client's -> our error and what to do.
_WORDS: tuple[tuple[str, type[RackflowError], str], ...] = (
    (r"dial unix .*(connection refused|no such file)|\"http://unix\.socket.*(EOF|reset by peer|broken pipe)$",
     Unreachable, "see on the host whether it runs: systemctl status lxd, or snap services lxd"),
    (r"no space left|disk quota exceeded", HostFault, "make room in the storage pool"),
    (r"failed shutting down", HostFault, "stop it without grace"),
    (r"(dataset|resource) (is )?busy|is shutting down|context canceled", Busy, ""),
    (r"busy running|matching .*operation|database is locked|context deadline exceeded", Busy, ""),
    (r"DNS name .* already used on network", Unsupported,
     "LXD gives an instance one NIC on a network that LXD manages: put the other one on another network"),
    (r"image not provided|image.*not found|no such image", NotFound, "import the image into the host first"),
    (r"already exists|already defined on another", Conflict, ""),
    (r"already (running|stopped|frozen)|instance is running|not running|not frozen", Conflict, ""),
    (r"parent device .* doesn't exist|network .*not found|pool .*not found", HostFault, "prepare the host again"),
    (r"not found|no such object|^open : no such file", NotFound, ""),  # the last: no console log yet
    (r"in use", Conflict, ""),
    (r"invalid (config|value|devices?|option)|failed validation", Invalid, ""),
)
_STATUS: dict[int, type[RackflowError]] = {
    401: CredentialRejected, 403: CredentialRejected, 404: NotFound, 409: Conflict, 501: HostFault, 503: Busy,
}  # fmt: skip


def translate(error: BaseException, host: str, subject: str, doing: str) -> RackflowError:
    """Return our error. doing: "start rf-…", for the message."""
    if isinstance(error, RackflowError):
        return error
    if isinstance(error, LXDAPIException):
        return _refused(error, host, subject, doing)
    what = "did not answer in time" if isinstance(error, (requests.Timeout, TimeoutError)) else "does not answer"
    if isinstance(error, (requests.RequestException, ClientConnectionFailed, OSError, TimeoutError)):
        return Unreachable(
            f"LXD on {host} {what} ({doing})", subject, {"seen": repr(error)[:500]},
            "see on the host whether it runs: systemctl status lxd, or snap services lxd",
        )
    return HostFault(f"LXD on {host}: {doing} failed: {error!r}", subject, {"seen": repr(error)[:500]})


def by_words(text: str) -> tuple[type[RackflowError], str] | None:
    """Return kind of error and fix for what LXD or its client said."""
    return next(((kind, fix) for pattern, kind, fix in _WORDS if re.search(pattern, text, re.IGNORECASE)), None)


def _refused(error: LXDAPIException, host: str, subject: str, doing: str) -> RackflowError:
    text, status = str(error), int(error.response.status_code)
    kind, fix = by_words(text) or (_STATUS.get(status, HostFault), "")
    return kind(f"LXD on {host}: {doing}: {text}", subject, {"status": status, "seen": text}, fix)
