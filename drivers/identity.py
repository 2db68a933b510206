"""What a machine shows of itself before there is any trust: an SSH host key, or the certificate of its API."""

from __future__ import annotations

from drivers.transport import certificate, hostkey
from drivers.transport.base import Shown

_BY_CERTIFICATE = ("esxi",)


async def show(driver: str, address: str, port: int) -> Shown:
    """Return what answers there. driver: "" = not known yet, so SSH. Raise Unreachable."""
    scan = certificate.scan if driver in _BY_CERTIFICATE else hostkey.scan_host_key
    return await scan(address, port)
