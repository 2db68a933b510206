"""What the API answers about plans of moves between hosts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.models import Answer, At, Id, Object

State = Literal["ready", "applying", "done", "stopped", "cancelled"]


class BrokenWish(Answer):
    instance: str
    rule: str


class Standing(Answer):
    """How the hosts stand. Shares are of cores or memory, whichever is greater: measured use of cores where known."""

    hosts_used: int
    empty_hosts: list[str]
    greatest_share: float
    broken_wishes: list[BrokenWish] = Field(default_factory=list, description="rules that are not hard, not kept")
    spread: float = Field(description="the greatest share less the smallest, in the pool where that is most")


class Effect(Answer):
    before: Standing
    after: Standing


class PlanRow(Answer):
    id: Id
    kind: Literal["rebalance", "consolidate", "evacuate"]
    host: str | None
    cluster: str | None = Field(description="null: all clusters, each by itself")
    state: State
    asked_by: str
    moves_planned: int
    effect: Effect
    method: str = Field(description="exact, in parts, heuristic, placement, or mixed")
    optimal: bool = Field(description="proven: nothing is better")
    eta_s: float = Field(description="for all moves, by what such steps usually take")
    operation: Id | None = Field(description="that carries it out")
    error: Object | None
    created_at: At
    finished_at: At | None


class PlannedMove(Answer):
    instance_id: Id
    instance: str
    from_: str = Field(alias="from")
    to: str
    live: bool | None = Field(description="null: it is off")
    carried_mib: int
    expected_s: float
    after: list[int] = Field(description="places of the moves that make room for it")
    state: str = Field(description="waiting, or the state of its operation")
    operation: Id | None
    took_s: float | None
    reason: str | None


class PlanShown(PlanRow):
    parameters: Object
    made_from: Object = Field(description="instances and hosts as they were; refused when they are not so any more")
    stays: dict[str, str] = Field(description="instance -> why it is not moved")
    moves: list[PlannedMove]
