"""Recorded rounds of placement, decided again: the same to the last bit, or what another policy would have done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from control.placement import engine
from control.placement.model import Choice, View
from control.rounds import Round, digest
from core.clock import rfc3339

_TOLD = 20  # differences that are named one by one


@dataclass(frozen=True)
class Difference:
    """One request that goes elsewhere than was recorded; None: nowhere."""

    at: str
    name: str
    recorded: str | None
    now: str | None


def replay(recorded: Iterable[Round], policy: str | None = None) -> dict[str, Any]:
    """Return how many rounds and decisions come out the same, what differs, and figures of both sides.

    policy: another one than was used, also in clusters that name one. Each round begins with the cloud as it was
    recorded: differences do not add up.
    opened: hosts that were empty before a round and hold something after it.
    """
    totals = dict.fromkeys(("rounds", "decisions", "same_rounds", "same_decisions"), 0)
    sides = {side: {"placed": 0, "rejected": 0, "opened": 0} for side in ("recorded", "replayed")}
    found: list[Difference] = []
    for one in recorded:
        view = replace(one.view, policies={}) if policy else one.view
        choices = engine.choose(view, one.requests, one.features, policy=policy or one.policy)
        differ = _differences(one, choices)
        totals["rounds"] += 1
        totals["decisions"] += len(choices)
        totals["same_decisions"] += len(choices) - len(differ)
        totals["same_rounds"] += not differ and (policy is not None or digest(choices) == one.told)
        _count(sides["recorded"], one.view, [host for host, _, _ in one.choices])
        _count(sides["replayed"], one.view, [choice.host for choice in choices])
        found += differ
    told = [vars(difference) for difference in found[:_TOLD]]
    return {"policy": policy, **totals, **sides, "differences": told}


def _differences(one: Round, choices: list[Choice]) -> list[Difference]:
    def name(host: int | None) -> str | None:
        return None if host is None else one.view.names[host]

    return [
        Difference(rfc3339(one.at) or "", choice.request.name, name(was[0]), name(choice.host))
        for was, choice in zip(one.choices, choices, strict=True)
        if was != (choice.host, choice.datastore, choice.position)
    ]


def _count(side: dict[str, int], view: View, hosts: list[int | None]) -> None:
    taken = np.array(sorted({host for host in hosts if host is not None}), np.int64)
    side["placed"] += sum(host is not None for host in hosts)
    side["rejected"] += sum(host is None for host in hosts)
    side["opened"] += int(np.count_nonzero(view.instances[taken] == 0))
