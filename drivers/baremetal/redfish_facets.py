"""What Redfish tells and does besides power, in sushy's objects: each function takes a system and blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import sushy
from sushy import exceptions

from core.errors import Unsupported
from drivers.baremetal.facets import BmcEvent, BootDevice, Sensor
from drivers.baremetal.inventory import Cpu, Disk, Firmware, Inventory, Nic

SOURCES = {
    BootDevice.DISK: sushy.BootSource.HDD, BootDevice.NETWORK: sushy.BootSource.PXE,
    BootDevice.CDROM: sushy.BootSource.CD,
}  # fmt: skip
LIT = {True: sushy.IndicatorLED.BLINKING, False: sushy.IndicatorLED.OFF}
# a BMC without that part; sushy-tools answers 500 for storage that it has not
_LACKS = (exceptions.MissingAttributeError, exceptions.ResourceNotFoundError, exceptions.ServerSideError)


def boot_once(system: Any, device: BootDevice, name: str) -> bool:
    """Ensure that the next start is from a device. Raise Unsupported."""
    boot = system.boot
    if boot.target is SOURCES[device] and boot.enabled is sushy.BootSourceOverrideEnabled.ONCE:
        return False
    if SOURCES[device] not in system.get_allowed_system_boot_source_values():
        raise Unsupported(f"the BMC of {name} cannot boot from {device}", f"host/{name}")
    system.set_system_boot_options(SOURCES[device], enabled=sushy.BootSourceOverrideEnabled.ONCE)
    return True


def drive(system: Any, name: str) -> Any:
    """Return the virtual CD drive, of the system or else of its BMC. Raise Unsupported."""
    for found in _drives(system):
        if {sushy.VirtualMediaType.CD, sushy.VirtualMediaType.DVD} & set(found.media_types or ()):
            return found
    raise Unsupported(f"the BMC of {name} has no virtual CD drive", f"host/{name}")


def _drives(system: Any) -> Iterator[Any]:
    for owner in (system, *system.managers):
        with suppress(*_LACKS):
            yield from owner.virtual_media.get_members()


def insert(found: Any, url: str) -> bool:
    """Ensure that an image is in the drive."""
    if found.inserted and found.image == url:
        return False
    if found.inserted:
        found.eject_media()
    found.insert_media(url)
    return True


def eject(found: Any) -> bool:
    """Ensure that the drive is empty."""
    if not found.inserted:
        return False
    found.eject_media()
    return True


def identify(system: Any, on: bool, name: str) -> bool:
    """Ensure that the LED of the machine, or of its chassis, blinks or not. Raise Unsupported."""
    for owner in (system, *_optional(lambda: system.chassis, ())):
        if owner.indicator_led is not None:
            if owner.indicator_led is LIT[on]:
                return False
            owner.set_indicator_led(LIT[on])
            return True
    raise Unsupported(f"the BMC of {name} has no identify LED", f"host/{name}")


def sensors(system: Any) -> tuple[Sensor, ...]:
    """Return temperatures, fans and power supplies of its chassis; what a BMC has not is left out."""
    found: list[Sensor] = []
    for chassis in _optional(lambda: system.chassis, ()):
        for read, part_of in _SENSORS:
            with suppress(*_LACKS):
                found += part_of(read(chassis))
    return tuple(found)


def _temperatures(thermal: Any) -> list[Sensor]:
    return [Sensor(one.name, one.reading_celsius, "celsius", _health(one)) for one in thermal.temperatures or ()]


def _fans(thermal: Any) -> list[Sensor]:
    return [Sensor(one.name, one.reading, _word(one.reading_units).lower(), _health(one)) for one in thermal.fans or ()]


def _supplies(power: Any) -> list[Sensor]:
    return [Sensor(one.name, one.last_power_output_watts, "watts", _health(one)) for one in power.power_supplies or ()]


_SENSORS: tuple[tuple[Callable[[Any], Any], Callable[[Any], list[Sensor]]], ...] = (
    (lambda chassis: chassis.thermal, _temperatures), (lambda chassis: chassis.thermal, _fans),
    (lambda chassis: chassis.power, _supplies),
)  # fmt: skip


def inventory(system: Any) -> Inventory:
    """Return what the BMC knows of its machine; a machine that was never on may have told it little."""
    processors = _optional(lambda: system.processors.get_members(), ())
    gib = system.memory_summary.size_gib if system.memory_summary else None
    bmc = next(iter(_optional(lambda: system.managers, ())), None)
    mode = _word(system.boot.mode).lower()
    return Inventory(
        cpu=_cpu(processors), memory_mib=int((gib or 0) * 1024), disks=tuple(_disks(system)),
        nics=tuple(_nics(system)), manufacturer=system.manufacturer or "",
        product=system.model or "", serial=system.serial_number or "",
        firmware=Firmware(version=system.bios_version or "", boot_mode={"legacy": "bios"}.get(mode, mode)),
        bmc_version=(bmc.firmware_version or "") if bmc else "", hostname=system.hostname or "",
    )  # fmt: skip


def _cpu(processors: Any) -> Cpu:
    if not processors:
        return Cpu()
    cores = [one.total_cores or 0 for one in processors]
    threads = [one.total_threads or one.total_cores or 0 for one in processors]
    first = processors[0]
    speed = first.max_speed_mhz
    return Cpu(
        first.model or "", _word(first.processor_architecture), sum(threads), len(processors), sum(cores) or None,
        float(speed) if speed else None,
    )  # fmt: skip


def _disks(system: Any) -> Iterator[Disk]:
    for part in _optional(lambda: system.storage.get_members(), ()):
        for one in _optional(lambda part=part: part.drives, ()):  # type: ignore[misc]
            rotational = {"HDD": True, "SSD": False}.get(one.media_type or "")
            words = (one.model or "", one.manufacturer or "", one.serial_number or "")
            yield Disk(one.name or one.identity, int(one.capacity_bytes or 0), rotational, *words)


def _nics(system: Any) -> Iterator[Nic]:
    for one in _optional(lambda: system.ethernet_interfaces.get_members(), ()):
        link = {"LinkUp": True, "LinkDown": False}.get(one.json.get("LinkStatus") or "")
        yield Nic(one.identity, (one.mac_address or "").lower(), one.speed_mbps, link)


def events(system: Any, limit: int) -> tuple[BmcEvent, ...]:
    """Return the latest entries of the logs of the machine and of its BMC, the newest first."""
    found: list[BmcEvent] = []
    for owner in (system, *_optional(lambda: system.managers, ())):
        services = (owner.json.get("LogServices") or {}).get("@odata.id")
        if services:
            found += [event(entry) for entry in _entries(owner._conn, services)]
    found.sort(key=lambda one: (one.at is not None, one.at.timestamp() if one.at else 0.0), reverse=True)
    return tuple(found[:limit])


def _entries(connector: Any, services: str) -> Iterator[dict[str, Any]]:
    """Yield log entries; sushy has no class for them. Members may hold them whole, or only where they are."""
    for service in _members(connector, services):
        where = (_read(connector, service).get("Entries") or {}).get("@odata.id")
        for entry in _members(connector, where) if where else ():
            yield entry if "Message" in entry else _read(connector, entry)


def _members(connector: Any, path: str) -> list[dict[str, Any]]:
    return list(connector.get(path).json().get("Members") or ())


def _read(connector: Any, link: dict[str, Any]) -> dict[str, Any]:
    return dict(connector.get(link["@odata.id"]).json())


def event(entry: dict[str, Any]) -> BmcEvent:
    """Return an entry of a log in our words; a BMC whose clock never ran gives no time. Pure."""
    at: datetime | None = None
    with suppress(ValueError, OverflowError):
        at = datetime.fromisoformat(entry["Created"]) if entry.get("Created") else None
    return BmcEvent(str(entry.get("Id", "")), at, entry.get("Severity") or "", entry.get("Message") or "")


def _optional(read: Callable[[], Any], default: Any = None) -> Any:
    """Return what a BMC may lack."""
    try:
        return read()
    except _LACKS:
        return default


def _health(one: Any) -> str:
    return _word(one.status.health) if one.status else ""


def _word(value: Any) -> str:
    return "" if value is None else str(getattr(value, "value", value))
