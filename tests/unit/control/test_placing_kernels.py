"""Hosts that boot no disk by themselves get instances only whose image names a kernel that they have."""

from __future__ import annotations

from core.errors import NoFit
from tests.rig import Rig


def placed(rig: Rig, name: str, image: str) -> str:
    rig.ask(name, image=image)
    (outcome,) = rig.place(rig.claim())
    if outcome.error is not None:
        raise outcome.error
    assert outcome.host is not None
    return outcome.host


def reason(rig: Rig, name: str, image: str) -> str:
    try:
        return placed(rig, name, image)
    except NoFit as error:
        return str(error)


def test_an_image_goes_where_its_kernel_is(rig: Rig) -> None:
    rig.network()
    rig.image("disk")
    rig.image("both", sha256="cd" * 32, kernel="six", boot_args="root=/dev/vda1")
    rig.image("other", sha256="ef" * 32, kernel="seven")
    rig.host("micro", cpus=32, memory_mib=2**16, capabilities={"kernels": ["six"]})
    assert "boots only images that name a kernel" in reason(rig, "a", "disk")
    assert "has no kernel seven" in reason(rig, "b", "other")
    assert placed(rig, "c", "both") == "micro"
    rig.host("kvm", cpus=4, memory_mib=4096)
    assert {placed(rig, "d", "disk"), placed(rig, "e", "other")} == {"kvm"}
