"""What the API answers about the history: what was measured, what happened, what was learned."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from api.models import Answer, At, Id
from core.states import HostState


class TimelineEntry(Answer):
    """One thing that happened. Which fields are there depends on its kind."""

    model_config = ConfigDict(extra="allow")

    at: At
    kind: str = Field(examples=["lifecycle", "operation", "step"])


class History(Answer):
    instance_id: Id
    instance: str | None
    owner: str | None
    host: str | None
    state: str | None
    timeline: list[TimelineEntry]


class CapacityRow(Answer):
    """Of one host: what it has, what is reserved on it (record), what is used (measured; null when not known)."""

    host: str
    state: HostState
    cluster: str
    cpus: float | None
    cpu_reserved: float
    cpu_used: float | None
    cpu_used_ratio: float | None
    memory_mib: int | None
    memory_reserved_mib: int
    memory_used_mib: int | None
    disk_total_mib: int | None
    disk_free_mib: int | None
    instances: int
    sampled_at: At | None


class OutlookRow(Answer):
    """Of one cluster and resource. low, high: holds four times out of five; null dates: not within a year.

    proven: whether such forecasts did better than "stays as it is" so far.
    """

    cluster: str
    resource: str = Field(examples=["cpu", "memory_mib"])
    used: float | None
    total: float | None
    in_30_days: float
    in_30_days_low: float
    in_30_days_high: float
    tomorrow_high: float = Field(description="of the peak of the day to come, four times out of five less")
    runs_out_at: At | None
    earliest_at: At | None
    latest_at: At | None
    proven: bool


class UsageRow(Answer):
    instance: str
    owner: str
    host: str
    cpus: float | None
    cpu_used: float | None
    memory_mib: int | None
    memory_used_mib: int | None
    sampled_at: At


class Usage(Answer):
    hosts: list[CapacityRow]
    instances: list[UsageRow]


class BacktestRow(Answer):
    """error and baseline_error in unit, smaller is better; null without cases. beats: whether it is used."""

    prediction: str
    tested_at: At
    cases: int
    error: float | None
    baseline_error: float | None
    unit: str
    baseline: str
    detail: str
    beats: bool


class RegressionRow(Answer):
    """A step that takes ratio times as long on a host as before since_at; others_ratio: on the other hosts."""

    verb: str
    step: str
    host: str
    driver: str | None
    since_at: At
    ratio: float
    before_p50_s: float
    after_p50_s: float
    runs_before: int
    runs_after: int
    others_ratio: float | None


class Replayed(Answer):
    events: int = Field(description="how many are moved again")


class Rows(Answer):
    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    truncated: bool
    duration_s: float
