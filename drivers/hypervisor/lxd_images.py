"""LXD: its own store of images."""

from __future__ import annotations

import re

from core.errors import HostFault, Invalid, NotFound, Permanent, RackflowError
from drivers.hypervisor import lxd_config, lxd_errors
from drivers.hypervisor.base import ImageOnHost
from drivers.hypervisor.lxd_client import LxdClient
from drivers.hypervisor.powers import KeepsImages

_IMPORT_S = 600.0
_IMPORT_FAULTS: dict[int, tuple[type[RackflowError], str]] = {
    127: (HostFault, "install the client: apt-get install lxd-client"),
}

_NO_IMAGE = (Invalid, "it must be a unified LXD tarball")


class LxdImages(LxdClient, KeepsImages):
    """Part of LxdHypervisor."""

    async def import_image(self, path: str, fingerprint: str, *, name: str) -> bool:
        """Import a unified tarball that lies on the host; LXD's fingerprint is its sha256. Raise Invalid."""
        if await self._api.find("images", fingerprint) is not None:
            return False
        # No properties: with them LXD 5.0.2 dies on an image whose metadata has none (nil map, lxd/images.go:715).
        done = await self.run_client(["image", "import", path], _IMPORT_S)
        if await self._api.find("images", fingerprint) is not None:
            return True
        other = re.search(r"fingerprint: ([0-9a-f]{64})", done.stdout)
        if other:
            await self.delete_image(other[1])
        seen = f"its content is {other[1]}" if other else (done.stderr or done.stdout).strip()
        kind, fix = _IMPORT_FAULTS.get(done.exit_code) or lxd_errors.by_words(seen) or _NO_IMAGE
        if issubclass(kind, Permanent):  # words about the file
            kind, fix = _NO_IMAGE
        evidence = {"path": path, "fingerprint": fingerprint, "exit_code": done.exit_code, "seen": seen}
        raise kind(f"LXD on {self._host} cannot import image {name}: {seen}", f"image/{name}", evidence, fix)

    async def images(self) -> list[ImageOnHost]:
        return [lxd_config.image(one) for one in await self._api.get("images", recursion=1)]

    async def delete_image(self, fingerprint: str) -> bool:
        if await self._api.find("images", fingerprint) is None:
            return False
        try:
            await self._api.change("delete", "images", fingerprint, doing=f"delete image {fingerprint[:12]}")
        except NotFound:
            return False
        return True
