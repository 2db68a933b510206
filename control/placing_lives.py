"""How long an instance is expected to be there, by what was learned of others like it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from control.placing_learned import Features

_LEAST_S = 60
AT_START, AT_AGE = "lifetime", "residual life"  # the predictions, by name: what is not used says nothing


def template_of(blueprint: str, image: str | None) -> str | None:
    """Return what instances that are made alike have in common: the name that they were asked for by, else the image.

    blueprint: the spec with a count, or the file, that an instance comes from; "" = none.
    """
    return blueprint or image


def expected_s(
    features: Features, template: str | None, owner: str, cpu: float, memory_mib: int, age_s: float = 0.0
) -> int:
    """Return the seconds that an instance is expected to live on; 0: nothing is known.

    It is the median, rounded up to a minute times a power of two: shapes that differ by less should be the same one.
    """
    known = features.get("lifetimes") or {}
    used = features.get("used") or ()
    if not known or (AT_AGE if age_s > 0 else AT_START) not in used:
        return 0
    left_s = medians_of(known, template, owner, f"{float(cpu)}x{memory_mib}")
    place = min(bisect_right(known["ages_s"], age_s), len(left_s)) - 1
    return rounded_s(left_s[place]) if place >= 0 else 0


def medians_of(known: Mapping[str, Any], template: str | None, owner: str, flavour: str) -> Sequence[float]:
    """Return the medians of the narrowest group that there is."""
    found = (
        known.get("owners", {}).get(template, {}).get(owner), known.get("templates", {}).get(template),
        known.get("flavours", {}).get(flavour), known.get("all"),
    )  # fmt: skip
    return next((one for one in found if one), ())


def rounded_s(seconds: float) -> int:
    """Return seconds rounded up to a minute times a power of two."""
    return int(_LEAST_S * 2 ** math.ceil(math.log2(max(seconds, _LEAST_S) / _LEAST_S)))
