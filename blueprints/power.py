"""What is asked for when idle hosts of a cluster are to be switched off, and which of them must stay on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from blueprints.common import Spec


class PowerSpec(Spec):
    """Which hosts a cluster puts to sleep and wakes by itself: looked at after each look at the hosts."""

    mode: Literal["manual", "automatic"] = "manual"
    idle_minutes: Annotated[int, Field(ge=1, le=10_080)] = Field(default=30, description="that it held nothing")
    rest_minutes: Annotated[int, Field(ge=1, le=10_080)] = Field(
        default=60, description="since it was switched off or on last, before it is put to sleep"
    )
    min_awake: Annotated[int, Field(ge=1, le=10_000)] = Field(default=2, description="hosts that stay on in any case")
    spare_hosts: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=1, description="of the largest that are on, so many may fail and what is needed fits all the same"
    )
    headroom: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        default=0.2, description="share of what is needed that stays free on top"
    )
    forecast: bool = Field(
        default=True, description="needed is also what is forecast for tomorrow, once forecasts beat their baseline"
    )
    sleep_between: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")] | None = Field(
        default=None, description="UTC, such as 20:00-06:00: only then hosts are put to sleep; by default always"
    )

    @property
    def automatic(self) -> bool:
        return self.mode == "automatic"

    def may_sleep_at(self, minute: int) -> bool:
        """Say whether hosts may be put to sleep at a minute of the day (UTC)."""
        if self.sleep_between is None:
            return True
        begin, end = (int(text[:2]) * 60 + int(text[3:]) for text in self.sleep_between.split("-"))
        return begin <= minute < end if begin <= end else minute >= begin or minute < end
