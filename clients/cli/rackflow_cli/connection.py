"""One kept-alive HTTP connection to the front-end's API. Only the standard library: it has to start fast."""

from __future__ import annotations

import http.client
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

from rackflow_cli.endpoint import HINT, Endpoint
from rackflow_cli.errors import CliError, ExitCode, from_problem

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0
DOWNLOAD_TIMEOUT_S = 300.0
_NEXT = re.compile(r'<([^>]*)>; rel="next"')
_DROPPED = (http.client.RemoteDisconnected, http.client.CannotSendRequest, BrokenPipeError, ConnectionResetError)

Query = Mapping[str, Any]


class Api:
    """The front-end's API: methods return decoded JSON and raise CliError."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        parts = urlsplit(endpoint.url)
        try:
            port = parts.port
        except ValueError:
            port = -1  # no number, or none of a port
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise CliError(f"{endpoint.url!r} is not an address", ExitCode.USAGE, fix="RACKFLOW_URL=http://HOST:PORT")
        made = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._prefix = parts.path
        self._http: http.client.HTTPConnection = made(parts.hostname, port, timeout=timeout_s)

    def get(self, path: str, query: Query | None = None, *, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """Return the answer to GET /v1/PATH."""
        return self._call("GET", f"/v1/{path}{_encoded(query)}", None, {}, timeout_s)[0]

    def items(self, path: str, query: Query | None = None) -> list[dict[str, Any]]:
        """Return all items of a list, page by page (the header Link says where the next one is, RFC 8288)."""
        url: str | None = f"/v1/{path}{_encoded(query)}"
        found: list[dict[str, Any]] = []
        while url:
            answer, link = self._call("GET", url, None, {}, ANSWER_TIMEOUT_S)
            found += answer
            following = _NEXT.search(link)
            url = following[1] if following else None
        return found

    def post(self, path: str, body: Any, *, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """Return the answer to POST /v1/PATH. A key of its own makes it safe to send once more."""
        return self._call("POST", f"/v1/{path}", body, _key(), timeout_s)[0]

    def download(self, path: str, into: BinaryIO) -> int:
        """Write the answer to GET /v1/PATH as it comes; return how many bytes."""
        headers = {"Authorization": f"Bearer {self.endpoint.token}"} if self.endpoint.token else {}
        try:
            answer = self._answer("GET", f"{self._prefix}/v1/{path}", None, headers, DOWNLOAD_TIMEOUT_S)
            if answer.status >= 400:
                raise _refused(answer.status, answer.read())
            size = 0
            while piece := answer.read(2**20):
                size += into.write(piece)
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            raise self._unreachable(f"broke off: {_words(error)}") from error
        return size

    def put(self, path: str, body: Any) -> Any:
        """Return the answer to PUT /v1/PATH."""
        return self._call("PUT", f"/v1/{path}", body, {}, ANSWER_TIMEOUT_S)[0]

    def patch(self, path: str, body: Any) -> Any:
        """Return the answer to PATCH /v1/PATH."""
        return self._call("PATCH", f"/v1/{path}", body, {}, ANSWER_TIMEOUT_S)[0]

    def delete(self, path: str, query: Query | None = None) -> Any:
        """Return the answer to DELETE /v1/PATH."""
        return self._call("DELETE", f"/v1/{path}{_encoded(query)}", None, _key(), ANSWER_TIMEOUT_S)[0]

    def close(self) -> None:
        """End the connection."""
        self._http.close()

    def _call(self, method: str, url: str, body: Any, headers: dict[str, str], timeout_s: float) -> tuple[Any, str]:
        """Return the decoded answer and its header Link."""
        headers = {"Accept": "application/json", **headers}
        if self.endpoint.token:
            headers["Authorization"] = f"Bearer {self.endpoint.token}"
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        status, content, link = self._exchange(method, self._prefix + url, data, headers, timeout_s)
        if status >= 400:
            raise _refused(status, content)
        return (_decoded(status, content) if content else None), link

    def _exchange(
        self, method: str, url: str, data: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> tuple[int, bytes, str]:
        again = self._http.sock is not None  # a kept connection may have been closed meanwhile: that is no failure
        try:
            try:
                return self._once(method, url, data, headers, timeout_s)
            except _DROPPED:
                if not again:
                    raise
                return self._once(method, url, data, headers, timeout_s)
        except TimeoutError as error:
            raise self._unreachable("did not answer in time") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(f"cannot be reached: {_words(error)}") from error

    def _once(
        self, method: str, url: str, data: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> tuple[int, bytes, str]:
        try:
            answer = self._answer(method, url, data, headers, timeout_s)
            return answer.status, answer.read(), answer.getheader("Link") or ""
        except BaseException:
            self._http.close()
            raise

    def _answer(
        self, method: str, url: str, data: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> http.client.HTTPResponse:
        if self._http.sock is None:
            self._http.connect()  # sets TCP_NODELAY
        assert self._http.sock is not None
        self._http.sock.settimeout(timeout_s)
        self._http.request(method, url, data, headers)
        return self._http.getresponse()

    def _unreachable(self, what: str) -> CliError:
        return CliError(f"the front-end at {self.endpoint.url} {what}", ExitCode.UNREACHABLE, fix=HINT)


def _key() -> dict[str, str]:
    return {"Idempotency-Key": secrets.token_hex(16)}


def part(name: str) -> str:
    """Return a name as one part of a path."""
    return quote(name, safe="")


def _encoded(query: Query | None) -> str:
    said = [(key, value) for key, value in (query or {}).items() if value not in (None, "", [])]
    return "?" + urlencode(said, doseq=True) if said else ""


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__).lower()


def _refused(status: int, content: bytes) -> CliError:
    try:
        said = json.loads(content)
        if status in (404, 405) and not (isinstance(said, Mapping) and "code" in said):
            return _stranger(status)  # every refusal of the API has a code
        return from_problem(status, said)
    except ValueError:
        said = content[:200].decode(errors="replace")
        return from_problem(status, {"message": f"the front-end answered with HTTP status {status}: {said}"})


def _decoded(status: int, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise _stranger(status) from error


def _stranger(status: int) -> CliError:
    said = f"what answered (HTTP status {status}) does not speak rackflow's API"
    return CliError(said, ExitCode.UNREACHABLE, fix="look at RACKFLOW_URL")
