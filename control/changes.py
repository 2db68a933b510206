"""What a verb makes of an instance's spec. Pure: tasks bring the world to it, then the record takes it over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from blueprints import change
from blueprints.change import PARAMETERS, ChangeSpec
from blueprints.common import read_spec
from blueprints.instance import InstanceSpec
from core.errors import Conflict, Invalid, NotFound
from core.states import Verb

Change = Callable[[InstanceSpec, Any], dict[str, Any]]  # (spec, parameters) -> fields that differ


def parameters_of(verb: Verb, parameters: Mapping[str, Any]) -> ChangeSpec:
    """Return an operation's parameters as the verb's spec, without what acceptance added."""
    model = PARAMETERS[verb]
    return model.model_validate({key: value for key, value in parameters.items() if key in model.model_fields})


def changed(verb: Verb, spec: InstanceSpec, parameters: Mapping[str, Any]) -> InstanceSpec:
    """Return the spec after a verb. Raise NotFound (no such disk or NIC), Conflict (taken), Invalid (smaller)."""
    rule = _CHANGES.get(verb)
    if rule is None:
        return spec
    found, wrong = read_spec(InstanceSpec, {**dict(spec), **rule(spec, parameters_of(verb, parameters))}, verb)
    if found is None:
        raise Invalid(f"{spec.name}: {wrong[0]['message']}", _subject(spec), {"errors": wrong})
    return found


def _rename(spec: InstanceSpec, want: change.Rename) -> dict[str, Any]:
    return {"name": want.name}


def _resize(spec: InstanceSpec, want: change.Resize) -> dict[str, Any]:
    return {"cpu": want.cpu or spec.cpu, "memory_mib": want.memory_mib or spec.memory_mib}


def _attach_disk(spec: InstanceSpec, want: change.AttachDisk) -> dict[str, Any]:
    if want.disk.name in [disk.name for disk in spec.disks]:
        raise Conflict(f"{spec.name} has a disk {want.disk.name} already", _subject(spec), fix="choose another name")
    return {"disks": (*spec.disks, want.disk)}


def _detach_disk(spec: InstanceSpec, want: change.DetachDisk) -> dict[str, Any]:
    if want.disk == "root":
        raise Invalid(f"the root disk of {spec.name} cannot be taken away", _subject(spec))
    _require_disk(spec, want.disk)
    return {"disks": tuple(disk for disk in spec.disks if disk.name != want.disk)}


def _grow_disk(spec: InstanceSpec, want: change.GrowDisk) -> dict[str, Any]:
    _require_disk(spec, want.disk)
    sizes = {"root": spec.disk_mib, **{disk.name: disk.size_mib for disk in spec.disks}}
    now = sizes[want.disk] or 0
    if want.size_mib < now:
        raise Invalid(
            f"disk {want.disk} of {spec.name} is {now} MiB large and cannot be made smaller ({want.size_mib} MiB)",
            _subject(spec), {"size_mib": now, "wanted_mib": want.size_mib}, "make a new disk and copy what you need",
        )  # fmt: skip
    if want.disk == "root":
        return {"disk_mib": want.size_mib}
    return {
        "disks": tuple(
            d.model_copy(update={"size_mib": want.size_mib}) if d.name == want.disk else d for d in spec.disks
        )
    }


def _require_disk(spec: InstanceSpec, name: str) -> None:
    known = ["root", *(disk.name for disk in spec.disks)]
    if name not in known:
        raise NotFound(f"{spec.name} has no disk {name}", _subject(spec), {"disks": known})


def _attach_nic(spec: InstanceSpec, want: change.AttachNic) -> dict[str, Any]:
    numbers = spec.nic_numbers()
    number = want.nic.index
    if number is None:
        number = next(n for n in range(64) if n not in numbers)
    if number in numbers:
        raise Conflict(f"{spec.name} has a NIC {number} already", _subject(spec), {"nics": numbers})
    kept = tuple(nic.model_copy(update={"index": n}) for nic, n in zip(spec.nics, numbers, strict=True))
    return {"nics": (*kept, want.nic.model_copy(update={"index": number}))}


def _detach_nic(spec: InstanceSpec, want: change.DetachNic) -> dict[str, Any]:
    numbers = spec.nic_numbers()
    if want.nic not in numbers:
        raise NotFound(f"{spec.name} has no NIC {want.nic}", _subject(spec), {"nics": numbers})
    kept = [(nic, n) for nic, n in zip(spec.nics, numbers, strict=True) if n != want.nic]
    return {"nics": tuple(nic.model_copy(update={"index": n}) for nic, n in kept)}


def _subject(spec: InstanceSpec) -> str:
    return f"instance/{spec.name}"


_CHANGES: dict[Verb, Change] = {
    Verb.RENAME: _rename,
    Verb.RESIZE: _resize,
    Verb.ATTACH_DISK: _attach_disk,
    Verb.DETACH_DISK: _detach_disk,
    Verb.GROW_DISK: _grow_disk,
    Verb.ATTACH_NIC: _attach_nic,
    Verb.DETACH_NIC: _detach_nic,
}
