"""What a machine shows of itself before there is any trust: an SSH host key, or the certificate of its API."""

from __future__ import annotations

from core.settings import DriverSettings
from drivers import registry
from drivers.transport import certificate, hostkey
from drivers.transport.base import Shown, Way
from drivers.transport.tunnel import LOOPBACK, dug


async def _nothing(address: str, port: int) -> Shown:
    return Shown("", "", "")


_OTHERWISE = {"esxi": certificate.scan, "fake": _nothing}  # than by an SSH host key


async def show(driver: str, address: str, port: int, way: Way | None = None) -> Shown:
    """Return what answers there. driver: "" = not known yet, so SSH; way: to an API that is not reached from here.

    Raise Unreachable, Invalid, HostFault (driver), and as the way does.

    Empty where hosts of a kind are not reached by SSH and their driver has no `async def identify(address, port)`.
    """
    look = _OTHERWISE.get(driver, hostkey.scan_host_key)
    if driver and driver not in registry.OWN:
        module = registry.load(driver)
        look = getattr(module, "identify", _nothing if registry.has_own_transport(driver) else look)
    if way is None:
        return await look(address, port)
    async with dug(address, way, address, port, DriverSettings()) as local:
        return await look(LOOPBACK, local)
