"""/v1/capacity, /v1/usage, /v1/query and /v1/history: what was measured and learned, and any question to it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from fastapi import APIRouter
from fastapi.responses import JSONResponse, StreamingResponse

from api import history_models as models
from api.auth import Caller
from api.bodies import Query
from api.context import Ctx
from control import hosts, instances, outbox
from control.access import Principal, sees_all
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
    return JSONResponse(await _capacity(ctx, caller))


async def _capacity(ctx: Ctx, caller: Principal) -> list[dict[str, Any]]:
    recorded = await ctx.store.read(lambda c: hosts.list_(c, caller))
    try:
        measured = {row["host"]: row for row in await asyncio.to_thread(ctx.analytics.capacity)}
    except Unreachable:
        measured = {}
    return [_row(host, measured.get(host["name"], {})) for host in recorded]


@router.post("/query", response_model=models.Rows)
async def query(ctx: Ctx, caller: Caller, body: Query) -> JSONResponse:
    """Run one SELECT over the history (docs/analytics.md lists its views). It sees everybody's: not for users."""
    _require_all(caller)
    return JSONResponse(await asyncio.to_thread(lambda: ctx.analytics.query(body.sql, limit=body.limit)))


@router.get("/capacity/forecast", response_model=list[models.OutlookRow])
async def capacity_forecast(ctx: Ctx, _caller: Caller) -> JSONResponse:
    """Return what each cluster will be asked for, with an interval of 80 %, and the day on which it runs out."""
    return JSONResponse(await asyncio.to_thread(ctx.analytics.outlook))


@router.get("/usage", response_model=models.Usage)
async def usage(ctx: Ctx, caller: Caller) -> JSONResponse:
    """Return the newest measured use of all hosts and of the instances that the caller sees; null where not known."""
    rows = await ctx.store.read(lambda c: instances.list_(c, caller))
    measured = {row["instance_id"]: row for row in await asyncio.to_thread(ctx.analytics.usage)}
    found = [_used(row, measured[row["id"]]) for row in rows if row["id"] in measured]
    return JSONResponse({"hosts": await _capacity(ctx, caller), "instances": found})


@router.post("/history/backtest", response_model=list[models.BacktestRow])
async def backtest(ctx: Ctx, caller: Caller) -> JSONResponse:
    """Judge every prediction by the past: its error beside a naive baseline's. What loses is not used."""
    _require_all(caller)
    return JSONResponse(await asyncio.to_thread(ctx.analytics.backtest))


@router.get("/history/regressions", response_model=list[models.RegressionRow])
async def regressions(ctx: Ctx, caller: Caller) -> JSONResponse:
    """Return which steps take longer on which host than they used to, and since when; the worst first."""
    _require_all(caller)
    return JSONResponse(await asyncio.to_thread(ctx.analytics.regressions))


@router.get("/history/tables/{table}", response_class=StreamingResponse)
async def export(ctx: Ctx, caller: Caller, table: str) -> StreamingResponse:
    """Return all that is recorded in a table (docs/analytics.md lists them) as a Parquet file."""
    _require_all(caller)
    file = await asyncio.to_thread(_exported, ctx, table)
    return StreamingResponse(_pieces(file), media_type="application/vnd.apache.parquet")


@router.post("/history/rebuild", response_model=models.Replayed)
async def rebuild(ctx: Ctx, caller: Caller) -> JSONResponse:
    """Move all events that the state database still has (30 days) into the history again; what is there stays once."""
    _require_all(caller)
    return JSONResponse({"events": await ctx.store.write(outbox.replay)})


def _require_all(caller: Principal) -> None:
    if not sees_all(caller):
        raise Denied(
            f"{caller.name} may not query the history, since it holds everybody's", "query", {"role": caller.role},
            "ask an administrator; the history of your own instances is open to you",
        )  # fmt: skip


def _exported(ctx: Ctx, table: str) -> BinaryIO:
    file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115, closed when it was sent
    ctx.analytics.export(table, file)
    file.seek(0)
    return file


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(2**20):
            yield piece


def _used(instance: dict[str, Any], sample: dict[str, Any]) -> dict[str, Any]:
    return {
        "instance": instance["name"], "owner": instance["owner"], "host": sample["host"],
        **{key: sample[key] for key in ("cpus", "cpu_used", "memory_mib", "memory_used_mib", "sampled_at")},
    }  # fmt: skip


def _row(host: dict[str, Any], sample: dict[str, Any]) -> dict[str, Any]:
    return {
        "host": host["name"], **{key: host[key] for key in _RECORDED}, **{key: sample.get(key) for key in _MEASURED},
    }  # fmt: skip
