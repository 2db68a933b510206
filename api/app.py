"""The REST API as one ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from analytics.client import AnalyticsClient
from api import errors, models
from api.context import Context
from api.limits import BodyLimit
from api.rest import (
    blueprints,
    cloud,
    clusters,
    consoles,
    copies,
    datastores,
    history,
    hosts,
    images,
    instances,
    machines,
    networks,
    operations,
    plans,
    reservations,
    schedules,
    verbs,
)  # fmt: skip
from control.store import Store
from core.settings import Settings

ROOMS = (
    instances, verbs, copies, consoles, schedules, reservations, hosts, machines, images, networks, datastores,
    clusters, operations, plans, blueprints, history, cloud,
)  # fmt: skip
DESCRIPTION = """A private cloud of VMs and containers.

Whatever takes time answers **202** with operations; follow them at `/v1/operations?ids=…`. Send `Idempotency-Key` with
a request that you may have to repeat. Errors are `application/problem+json`: `code` is stable, `fix` says what to do.
"""
TAGS = [
    {"name": "instances", "description": "VMs and containers"},
    {"name": "schedules", "description": "verbs that are asked for at a time"},
    {"name": "reservations", "description": "room kept for later, maintenances"},
    {"name": "hosts", "description": "machines that run instances"},
    {"name": "machines", "description": "machines with a BMC, before anything runs on them"},
    {"name": "images", "description": "what instances start from"},
    {"name": "networks", "description": "virtual networks and their addresses"},
    {"name": "datastores", "description": "places for images and volumes on hosts"},
    {"name": "clusters", "description": "hosts that share datastores and networks"},
    {"name": "plans", "description": "moves between hosts: rebalance, consolidate, evacuate"},
    {"name": "operations", "description": "what was asked for, and how far it is"},
    {"name": "blueprints", "description": "whole clouds as one document"},
    {"name": "history", "description": "what was measured and what happened"},
    {"name": "cloud", "description": "the front-end itself"},
]
_PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "an error",
        "content": {errors.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


def create_app(
    settings: Settings, store: Store, analytics: AnalyticsClient, wake: Callable[[], None]
) -> FastAPI:
    """Build the app. wake: called after each change that the dispatcher should look at."""
    context = Context(settings, store, analytics, wake)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await context.close()

    app = FastAPI(
        title="rackflow", version=cloud.VERSION, description=DESCRIPTION, openapi_tags=TAGS, lifespan=lifespan,
        openapi_url="/v1/openapi.json", docs_url=None, redoc_url=None,  # their pages load scripts from elsewhere
        generate_unique_id_function=_operation_id, redirect_slashes=False,
    )  # fmt: skip
    app.state.context = context
    app.add_middleware(BodyLimit)
    errors.install(app)
    for room in ROOMS:
        app.include_router(room.router, prefix="/v1", responses=_PROBLEM)
    _describe_errors(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _describe_errors(app: FastAPI) -> None:
    """Describe our errors in place of FastAPI's own 422: bad requests are answered 400, in the shape of all errors."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        found = build()
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        schemas = found["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["Problem"] = models.Problem.model_json_schema()
        return found

    app.openapi = openapi  # type: ignore[method-assign]
