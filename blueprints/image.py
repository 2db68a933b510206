"""What is asked for when an image is asked for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from blueprints.common import Labels, Name, SizeMib, Spec
from core.states import InstanceKind


class ImageSpec(Spec):
    """Immutable content from a file of the front-end or a URL."""

    name: Name
    kind: InstanceKind = InstanceKind.VM
    source: str = Field(min_length=1, description="path on the front-end, file:// or http(s):// URL")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    format: Literal["auto", "qcow2", "raw", "vmdk", "ova", "tar"] = "auto"
    os: str = ""
    kernel: Name | None = Field(
        default=None, description="of hosts that boot no disk by itself (firecracker), by its name there"
    )
    boot_args: Annotated[str, Field(max_length=1024, pattern=r"^[ -~]*$")] = Field(
        default="", description="with that kernel; by default root=/dev/vda rw, for an image that is one file system"
    )
    min_memory_mib: SizeMib | None = Field(default=None, alias="min_memory")
    labels: Labels = Field(default_factory=dict)
