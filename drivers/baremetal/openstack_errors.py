"""Errors of the clients of Ironic and Inspector, which both stand on keystoneauth and requests, as ours."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ironic_inspector_client import VersionNotSupported
from keystoneauth1 import exceptions as keystone
from keystoneauth1 import http_basic, noauth, session
from requests import RequestException

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
from core.settings import DriverSettings
from drivers.baremetal.base import BmcEndpoint

Kind = type[RackflowError]
BY_STATUS: dict[int, Kind] = {
    400: Invalid, 401: CredentialRejected, 403: CredentialRejected, 404: NotFound, 406: Unsupported, 409: Conflict,
    501: Unsupported,
}  # fmt: skip
BY_WORDS: dict[str, Kind] = {
    "is locked by host": Busy, "Can not transition from state": Conflict, "can not be performed on node": Conflict,
    "was not found in Ironic": NotFound, "Could not find node": NotFound, "Node is locked": Busy,
}  # these come as 400, 404, 409 and 500 alike  # fmt: skip
FIXES: dict[Kind, str] = {
    CredentialRejected: "correct the user or the password of the service",
    Unreachable: "see that the service runs", HostFault: "see the service's log",
}  # fmt: skip
# at DEBUG keystoneauth writes down the bodies of requests, and with them the passwords of BMCs
logging.getLogger("keystoneauth").setLevel(logging.WARNING)


def translator(what: str, subject: str) -> Callable[[Exception, str], RackflowError]:
    """Return the function that translates for one service. what: for messages, e.g. "Ironic at http://…"."""

    def translated(error: Exception, doing: str) -> RackflowError:
        seen = str(error) or type(error).__name__
        kind = kind_of(error, seen)
        return kind(f"{what}, {doing}: {seen}", subject, {"seen": seen}, FIXES.get(kind, ""))

    return translated


def kind_of(error: Exception, seen: str) -> Kind:
    """Return which of our errors one of theirs is. Pure."""
    for words, kind in BY_WORDS.items():
        if words in seen:
            return kind
    status = _status(error)
    if status:
        return BY_STATUS.get(status, Unreachable if status >= 500 else HostFault)
    if isinstance(error, VersionNotSupported):
        return Unsupported
    # ConnectionError, discovery that found nothing: keystoneauth's ClientException
    return Unreachable if isinstance(error, keystone.ClientException | RequestException | TimeoutError) else HostFault


def _status(error: Any) -> int:
    response = getattr(error, "response", None)
    found = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    return int(found or getattr(response, "status_code", 0) or 0)


def log_in(endpoint: BmcEndpoint, settings: DriverSettings) -> Any:
    """Return keystoneauth's session with a service: basic authentication, or none where there is no user."""
    auth: Any = noauth.NoAuth(endpoint=endpoint.address)
    if endpoint.user:
        auth = http_basic.HTTPBasicAuth(endpoint.address, username=endpoint.user, password=endpoint.secret())
    return session.Session(auth=auth, verify=endpoint.verify_tls, timeout=settings.command_timeout_s)
