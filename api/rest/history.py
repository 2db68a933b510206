"""/v1/capacity and /v1/query: what was measured, and any question to the history."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api import models
from api.auth import Caller
from api.bodies import Query
from api.context import Ctx
from control import hosts
from control.access import sees_all
from core.errors import Denied, Unreachable

router = APIRouter(tags=["history"])
_RECORDED = (
    "state", "cluster", "cpus", "cpu_reserved", "memory_mib", "memory_reserved_mib", "instances",
)  # fmt: skip
_MEASURED = (
    "cpu_used", "cpu_used_ratio", "memory_used_mib", "disk_total_mib", "disk_free_mib", "sampled_at",
)  # fmt: skip


@router.get("/capacity", response_model=list[models.CapacityRow])
async def capacity(ctx: Ctx, caller: Caller) -> JSONResponse:
    """Return what each host has, what is reserved on it and what is used; without history, measured values are null."""
    recorded = await ctx.store.read(lambda c: hosts.list_(c, caller))
    try:
        measured = {row["host"]: row for row in await asyncio.to_thread(ctx.analytics.capacity)}
    except Unreachable:
        measured = {}
    return JSONResponse([_row(host, measured.get(host["name"], {})) for host in recorded])


@router.post("/query", response_model=models.Rows)
async def query(ctx: Ctx, caller: Caller, body: Query) -> JSONResponse:
    """Run one SELECT over the history (docs/analytics.md lists its views). It sees everybody's: not for users."""
    if not sees_all(caller):
        raise Denied(
            f"{caller.name} may not query the history, since it holds everybody's", "query", {"role": caller.role},
            "ask an administrator; the history of your own instances is open to you",
        )  # fmt: skip
    return JSONResponse(await asyncio.to_thread(lambda: ctx.analytics.query(body.sql, limit=body.limit)))


def _row(host: dict[str, Any], sample: dict[str, Any]) -> dict[str, Any]:
    return {
        "host": host["name"], **{key: host[key] for key in _RECORDED}, **{key: sample.get(key) for key in _MEASURED},
    }  # fmt: skip
