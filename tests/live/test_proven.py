"""What docs/drivers.md says of KVM and LXD is what the kit proves on hosts of the lab, as it runs on any other host."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from blueprints.blueprint import load
from core.settings import DriverSettings
from daemon.driver_hosts import small_image
from drivers.conformance.on_host import Where
from drivers.storage.base import ImageFile
from tests.labs import Lab
from tests.proven import compare, kit

ON = {"kvm": "libvirt 9.0.0, QEMU 7.2 (TCG)", "lxd": "LXD 5.0.2, a dir pool"}
IMAGES = {"kvm": ("tiny", "qcow2"), "lxd": ("busybox", "tar")}


async def image_of(lab: Lab, name: str, format: str) -> ImageFile:
    path = next(Path(image.source) for image in load(lab.blueprint).images if image.name == name)
    content = await asyncio.to_thread(path.read_bytes)
    return ImageFile(hashlib.sha256(content).hexdigest(), format, len(content), path)


@pytest.mark.slow  # the suites of each driver run the same cases; an emulated guest boots sixty times, for 15 minutes
@pytest.mark.parametrize("kind", list(ON))
async def test_a_driver_of_hosts(lab: Lab, tmp_path: Path, kind: str) -> None:
    image = await image_of(lab, *IMAGES[kind])
    here, other = [lab.endpoint(host) for host in lab.hosts(kind)[:2]]
    where = Where(
        kind, here, DriverSettings(domain_type="qemu"), datastore="/var/lib/rackflow-test/kit", bridge="br0",
        image=image, store_image=small_image(tmp_path), other=other,
    )  # fmt: skip
    compare(await kit(where, ON[kind]))
