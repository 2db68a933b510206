"""/v1/apply, /v1/plan and /v1/schema: whole blueprints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api import ledger_models
from api.accept import Key
from api.auth import Caller
from api.bodies import Apply, Plan
from api.context import Ctx
from blueprints.blueprint import parse
from blueprints.schema import schema
from control import blueprints

router = APIRouter(tags=["blueprints"])


@router.post("/apply", response_model=ledger_models.Plan)
async def apply_blueprint(ctx: Ctx, caller: Caller, body: Apply, key: Key = None) -> JSONResponse:
    """Bring the record to what a blueprint says and start the operations that brings along; dry_run: only say it."""
    if body.dry_run:
        return await plan_blueprint(ctx, caller, Plan(blueprint=body.blueprint, prune=body.prune))
    wanted = parse(body.blueprint)
    plan = await ctx.store.write(lambda c: blueprints.apply(c, caller, wanted, prune=body.prune, source="api", key=key))
    ctx.wake()
    return JSONResponse(asdict(plan))


@router.post("/plan", response_model=ledger_models.Plan)
async def plan_blueprint(ctx: Ctx, caller: Caller, body: Plan) -> JSONResponse:
    """Say what applying a blueprint would do, and where its new instances would be placed; nothing is changed."""
    wanted = parse(body.blueprint)
    features = await ctx.features()
    policy = ctx.settings.placement_policy
    plan = await ctx.store.read(
        lambda c: blueprints.apply(
            c, caller, wanted, prune=body.prune, dry_run=True, features=features, policy=policy
        )
    )
    return JSONResponse(asdict(plan))


@router.get("/schema/{noun}")
async def show_schema(noun: str) -> dict[str, Any]:
    """Return the JSON Schema of what can be asked for: instance, host, image, …, or a whole blueprint."""
    return schema(noun)
