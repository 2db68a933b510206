"""Where instances would be placed if they were asked for now: what `plan` and a dry run of `apply` show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from blueprints.instance import InstanceSpec, NicSpec
from control import images, placing_asleep
from control.accept.deploy import disk_mib
from control.access import Principal
from control.networks import NetworkRecord
from control.networks import records as network_records
from control.placement import engine
from control.placement.model import Choice, Request, Shape
from control.placement.weights import DEFAULT
from control.placing import refusal
from control.placing_gangs import never_whole
from control.placing_lives import expected_s, template_of
from control.placing_view import Cloud, shape_of
from core.errors import RackflowError
from core.states import InstanceKind


def plan(
    c: sa.Connection, principal: Principal, specs: Sequence[InstanceSpec], features: Mapping[str, Any] | None = None,
    policy: str = DEFAULT,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return where instances would be placed if they were asked for now; nothing is written.

    What does not exist yet (an image to be imported, a network to be made) is left out of account, and noted.
    """
    known = images.by_name(c, {spec.image for spec in specs})
    nets = network_records(c)
    requests: list[Request] = []
    notes: dict[str, list[str]] = {}
    groups = {one.name: "" if many.count is None else many.name for many in specs for one in many.expand()}
    for spec in (one for many in specs for one in many.expand()):
        image = known.get(spec.image)
        kind = spec.kind or (image.kind if image else InstanceKind.VM)
        told = [] if image else [f"image {spec.image} is not there yet"]
        told += [f"network {nic.network} is not there yet" for nic in spec.nics if nic.network not in nets]
        nics = tuple(nic for nic in spec.nics if nic.network in nets) or _default(spec, kind, nets)
        size = disk_mib(spec, image) if image else (spec.disk_mib or 0) + sum(d.size_mib for d in spec.disks)
        template = template_of(groups[spec.name], spec.image)
        lives_s = expected_s(features or {}, template, principal.name, spec.cpu, spec.memory_mib)
        shape = shape_of(spec.model_copy(update={"nics": nics}), kind, size, image, lifetime_s=lives_s)
        requests.append(Request(spec.name, spec.name, shape, principal.name, spec.priority, str(spec.gang or "")))
        notes[spec.name] = told
    cloud = Cloud(c, {request.shape for request in requests}, lock=False, features=features)
    possible: dict[Shape, bool] = {}
    choices = engine.choose(cloud.view, requests, features, policy=policy)
    refused = [choice for choice in choices if choice.host is None]
    errors = {one.request.key: refusal(cloud, one.request, one, possible, {}, None) for one in refused}
    errors = never_whole(cloud.view, [one.request for one in refused], errors)
    errors = placing_asleep.told(c, cloud, requests, errors, features, policy)
    return [_planned(cloud, choice, errors.get(choice.request.key), notes) for choice in choices]


def _default(spec: InstanceSpec, kind: str, nets: Mapping[str, NetworkRecord]) -> tuple[NicSpec, ...]:
    if spec.nics:
        return ()
    return tuple(NicSpec(network=net.name) for net in nets.values() if kind in net.default_for)[:1]


def _planned(
    cloud: Cloud, choice: Choice, error: RackflowError | None, notes: Mapping[str, list[str]]
) -> dict[str, Any]:
    request = choice.request
    return {
        "name": request.name, "kind": request.shape.kind, "cpu": request.shape.cpu_m / 1000,
        "memory_mib": request.shape.memory_mib, "disk_mib": request.shape.disk_mib,
        "host": cloud.view.names[choice.host] if choice.host is not None else None, "datastore": choice.datastore,
        "notes": notes[request.name], "error": error.to_dict() if error else None,
    }  # fmt: skip
