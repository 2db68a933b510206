"""What a machine shows of itself before there is any trust: an SSH host key, or the certificate of its API."""

from __future__ import annotations

from drivers import registry
from drivers.transport import certificate, hostkey
from drivers.transport.base import Shown


async def _nothing(address: str, port: int) -> Shown:
    return Shown("", "", "")


_OTHERWISE = {"esxi": certificate.scan, "fake": _nothing}  # than by an SSH host key


async def show(driver: str, address: str, port: int) -> Shown:
    """Return what answers there. driver: "" = not known yet, so SSH. Raise Unreachable, Invalid, HostFault (driver).

    Empty where hosts of a kind are not reached by SSH and their driver has no `async def identify(address, port)`.
    """
    look = _OTHERWISE.get(driver, hostkey.scan_host_key)
    if driver and driver not in registry.OWN:
        module = registry.load(driver)
        look = getattr(module, "identify", _nothing if registry.has_own_transport(driver) else look)
    return await look(address, port)
