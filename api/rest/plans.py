"""/v1/plans"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from api import ledger_models, plan_models
from api.accept import Key, accept
from api.auth import Caller
from api.bodies import NewPlan
from api.context import After, Ctx, Limit, page
from blueprints.plan import ApplyPlan
from control import plans, rebalancing
from core.states import Verb

router = APIRouter(prefix="/plans", tags=["plans"])


@router.get("", response_model=list[plan_models.PlanRow])
async def list_plans(
    request: Request, ctx: Ctx, caller: Caller, limit: Limit = 50, after: After = None
) -> JSONResponse:
    """List plans of moves between hosts, the newest first, without their moves."""
    return page(request, await ctx.store.read(lambda c: plans.list_(c, caller, limit=limit, after=after)), limit)


@router.post("", status_code=201, response_model=plan_models.PlanShown)
async def make_plan(ctx: Ctx, caller: Caller, body: NewPlan) -> JSONResponse:
    """Plan moves and keep the plan; nothing is moved before it is applied."""
    plans.require_may(caller)
    features = await ctx.features()
    world = await ctx.store.read(lambda c: rebalancing.look(c, body))
    made = await asyncio.to_thread(rebalancing.made, body, world, features, policy=ctx.settings.placement_policy)
    row_id = await ctx.store.write(lambda c: plans.write(c, caller, made))
    return JSONResponse(await ctx.store.read(lambda c: plans.show(c, caller, row_id)), 201)


@router.get("/{plan_id}", response_model=plan_models.PlanShown)
async def show_plan(ctx: Ctx, caller: Caller, plan_id: str) -> JSONResponse:
    """Show a plan with its moves, what it rests on, and how far each move is."""
    return JSONResponse(await ctx.store.read(lambda c: plans.show(c, caller, plan_id)))


@router.post("/{plan_id}/apply", status_code=202, response_model=ledger_models.Accepted)
async def apply_plan(
    ctx: Ctx, caller: Caller, plan_id: str, body: ApplyPlan | None = None, key: Key = None
) -> JSONResponse:
    """Ask for a plan to be carried out; a conflict says what has changed since it was made."""
    given = {} if body is None else body.model_dump(mode="json", exclude_unset=True)
    return await accept(ctx, caller, Verb.APPLY_PLAN, {"plans": [plan_id], **given}, key)


@router.post("/{plan_id}/cancel", response_model=plan_models.PlanShown)
async def cancel_plan(ctx: Ctx, caller: Caller, plan_id: str) -> JSONResponse:
    """Let a plan never be applied. One that is carried out ends with its operation, which can be cancelled."""
    return JSONResponse(await ctx.store.write(lambda c: plans.cancel(c, caller, plan_id)))
