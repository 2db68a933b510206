"""/v1/reservations"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api import models
from api.auth import Caller
from api.bodies import NewReservation
from api.context import Ctx, Name
from control import reservations

router = APIRouter(prefix="/reservations", tags=["reservations"])


@router.get("", response_model=list[models.Reservation])
async def list_reservations(ctx: Ctx, caller: Caller, name: Name = None) -> JSONResponse:
    """List reservations that are not over, the next one first."""
    return JSONResponse(await ctx.store.read(lambda c: reservations.list_(c, caller, name=name)))


@router.post("", status_code=201, response_model=models.Reservation)
async def make_reservation(ctx: Ctx, caller: Caller, body: NewReservation) -> JSONResponse:
    """Keep room of a host or cluster from a time on, or all of it for a maintenance."""
    return JSONResponse(await ctx.store.write(lambda c: reservations.create(c, caller, body)), 201)


@router.get("/{name}", response_model=models.Reservation)
async def show_reservation(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Show a reservation."""
    return JSONResponse(await ctx.store.read(lambda c: reservations.show(c, caller, name)))


@router.delete("/{name}", response_model=models.Deleted)
async def delete_reservation(ctx: Ctx, caller: Caller, name: str) -> JSONResponse:
    """Give back what is reserved."""
    await ctx.store.write(lambda c: reservations.delete(c, caller, name))
    ctx.wake()  # deploys may wait for it
    return JSONResponse({"deleted": name})
