"""From errors to problem+json (RFC 9457): one shape for refusals, bad requests and our own bugs."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from blueprints.change import PARAMETERS
from blueprints.problems import field_name, message
from blueprints.schema import MODELS
from core.errors import RackflowError
from core.ids import new_id

log = logging.getLogger("rackflow.api")

MEDIA_TYPE = "application/problem+json"
ONE, MANY = "one", "many"  # tags of a body that is a spec or a list of them; no part of a field's name


class _Problem(JSONResponse):
    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        """Return plain ASCII: what was sent is quoted, and may be text that no encoding knows (lone surrogates)."""
        return json.dumps(content, default=str).encode()


def problem(status: int, code: str, said: str, **more: Any) -> JSONResponse:
    """Return an error's answer; more: subject, evidence, fix, safe_to_retry."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status == 503:
        headers["Retry-After"] = "1"
    content = {
        "type": f"urn:rackflow:error:{code}", "title": code.replace("-", " "), "status": status, "detail": said,
        "code": code, "message": said, "subject": None, "evidence": {}, "fix": None, "safe_to_retry": False, **more,
    }  # fmt: skip
    return _Problem(content, status, headers)


def install(app: FastAPI) -> None:
    """Make the app answer every exception with problem+json."""
    app.add_exception_handler(RackflowError, _ours)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RackflowError)
    return answer_to(error)


def answer_to(error: RackflowError) -> JSONResponse:
    """Return the answer for one of our errors."""
    said = error.to_dict()
    return problem(error.http_status, said.pop("code"), said.pop("message"), **said)


async def _not_valid(request: Request, error: Exception) -> JSONResponse:
    """Say which fields are wrong, in the words that blueprints use."""
    assert isinstance(error, RequestValidationError)
    noun, model = _asked(request.url.path)
    errors = [_wrong(detail, model, error.body) for detail in error.errors()]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    first = ": ".join(part for part in (errors[0]["field"], errors[0]["message"]) if part)
    fix = f"`rackflow schema {noun}` (GET /v1/schema/{noun}) shows all fields" if noun else None
    return problem(400, "invalid", f"the request is not valid: {first}{more}", evidence={"errors": errors}, fix=fix)


def _asked(path: str) -> tuple[str, type[BaseModel] | None]:
    """Return what a path is asked with: the noun that has a schema, "" for none, and the model of its fields."""
    parts = path.split("/")[2:]
    if len(parts) == 1:
        noun = parts[0].removesuffix("s")
        return (noun, MODELS[noun]) if noun in MODELS else ("", None)
    verbs: dict[str, type[BaseModel]] = {str(verb): model for verb, model in PARAMETERS.items()}
    return "", verbs.get(parts[2]) if len(parts) == 3 and parts[0] == "instances" else None


def _wrong(detail: Any, model: type[BaseModel] | None, body: Any) -> dict[str, Any]:
    loc: Sequence[Any] = detail["loc"]
    if detail["type"] == "json_invalid":
        return {"field": "", "message": f"is not JSON: {detail.get('ctx', {}).get('error', '')} at {loc[-1]}"}
    where, parts = str(loc[0]), tuple(part for part in loc[1:] if part not in (ONE, MANY, "[key]"))
    if where != "body":
        return {"field": ".".join(str(part) for part in parts), "message": message(detail, None)}
    return {"field": field_name(parts, body), "message": message(detail | {"loc": parts}, model)}


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    codes = {404: "not-found", 405: "unsupported", 413: "invalid", 400: "invalid"}
    said = str(error.detail)
    if error.status_code == 404:
        said = f"there is nothing at {request.url.path}"
    return problem(error.status_code, codes.get(error.status_code, "error"), said)


async def _bug(request: Request, error: Exception) -> JSONResponse:
    """Hide what went wrong inside, but give an id under which the log tells it."""
    found = new_id()
    log.error("error %s in %s %s", found, request.method, request.url.path, exc_info=error)
    return problem(
        500, "error", f"the front-end made an error; its log tells more under {found}", evidence={"id": found},
        fix="look at `rackflow logs api`",
    )  # fmt: skip
