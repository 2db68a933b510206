"""JSON Schemas of what can be asked for."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel

from blueprints.blueprint import Blueprint
from blueprints.cluster import ClusterSpec
from blueprints.datastore import DatastoreSpec
from blueprints.host import HostSpec
from blueprints.image import ImageSpec
from blueprints.instance import InstanceSpec
from blueprints.machine import MachineSpec
from blueprints.network import NetworkSpec
from blueprints.plan import PlanSpec
from blueprints.reservation import ReservationSpec
from core.errors import NotFound

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MODELS: dict[str, type[BaseModel]] = {
    "blueprint": Blueprint,
    "cluster": ClusterSpec,
    "datastore": DatastoreSpec,
    "host": HostSpec,
    "image": ImageSpec,
    "instance": InstanceSpec,
    "machine": MachineSpec,
    "network": NetworkSpec,
    "plan": PlanSpec,
    "reservation": ReservationSpec,
}


def schema(noun: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a noun, or of the whole "blueprint". Raise NotFound."""
    model = MODELS.get(noun) or MODELS.get(noun.removesuffix("s"))
    if model is None:
        near = difflib.get_close_matches(noun, MODELS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        known = f"{hint}known are {', '.join(MODELS)}"
        raise NotFound(f"there is no schema {noun!r}", f"schema/{noun}", fix=known)
    return {"$schema": DIALECT, **model.model_json_schema(by_alias=True)}
