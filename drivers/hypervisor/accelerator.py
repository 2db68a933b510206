"""Whether a host's KVM really runs guests: its device may be there and hang or abort as soon as a kernel boots.

A kernel of 134 bytes is booted in place of the firmware: real mode, page tables, long mode, a thousand CPUID exits,
then a byte to the debug-exit device, which ends QEMU with exit code 33. Real mode alone proves nothing: hosts were
seen (nested, restricted KVM) on which it runs and the switch to long mode never returns.
"""

from __future__ import annotations

from core.errors import Unreachable
from drivers.transport.base import Result, Transport

PROBE_DEADLINE_S = 10.0
PROVED = 33  # (0x10 << 1) | 1, as isa-debug-exit makes it
RESULT_FILE = "/run/rackflow-domain-type"  # forgotten at a reboot, which is when it may change
_ROM_FILE = "/run/rackflow-probe.rom"
_ROM_BYTES = 65536
_RESET_VECTOR = bytes.fromhex("ea000000f0")  # ljmp $0xf000, $0

# Made from kvm_probe.S, which stands beside this file: as; ld -Ttext 0 --oformat binary
KERNEL = bytes.fromhex(
    "fa31c08ed88ec0fcbf0010b90018f3abc70600100320c70600200330c706003083002e660f0116800066b8200000000f22e066b8"
    "001000000f22d866b9800000c00f320d00010f3066b8010000800f22c066ea59000f000800bee803000031c00fa2ffce75f8b010"
    "e6f4f4ebfd0f1f00000000000000000000000000009a20000f0070000f00"
)


def rom() -> bytes:
    """Return 64 KiB that QEMU maps at 0xf0000 in place of its BIOS."""
    image = bytearray(_ROM_BYTES)
    image[: len(KERNEL)] = KERNEL
    image[0xFFF0 : 0xFFF0 + len(_RESET_VECTOR)] = _RESET_VECTOR
    return bytes(image)


def probe_argv(accelerator: str, cpu: str) -> list[str]:
    """Return the command that boots the probe. cpu "host" is what our domains get under KVM."""
    return [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-m", "8",
        "-machine", f"pc,accel={accelerator}", "-cpu", cpu, "-bios", _ROM_FILE,
        "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
    ]  # fmt: skip


async def find_domain_type(transport: Transport, architecture: str) -> tuple[str, str]:
    """Return ("kvm" or "qemu", why); why is empty when an earlier finding was used. Raise Unreachable."""
    known = await transport.run(["cat", RESULT_FILE], check=False)
    if known.exit_code == 0 and known.stdout.strip() in ("kvm", "qemu"):
        return known.stdout.strip(), ""
    found = await _try(transport, architecture)
    await transport.put(f"{found[0]}\n".encode(), RESULT_FILE, sudo=True)
    return found


async def _try(transport: Transport, architecture: str) -> tuple[str, str]:
    device = await transport.run(["test", "-c", "/dev/kvm"], check=False)
    if device.exit_code != 0:
        return "qemu", "there is no /dev/kvm"
    if architecture != "x86_64":  # no probe was written for it
        return "kvm", "there is /dev/kvm"
    await transport.put(rom(), _ROM_FILE, sudo=True)
    try:
        tried = await transport.run(probe_argv("kvm", "host"), timeout_s=PROBE_DEADLINE_S, sudo=True, check=False)
    except Unreachable:
        if not transport.is_alive():
            raise
        return "qemu", f"a tiny kernel did not boot under KVM within {PROBE_DEADLINE_S:g} s"
    return judge(tried)


def judge(tried: Result) -> tuple[str, str]:
    """Return the domain type that the probe's end speaks for, and why."""
    if tried.exit_code == PROVED:
        return "kvm", "a tiny kernel booted under KVM"
    last = (tried.stderr.strip().splitlines() or [f"exit code {tried.exit_code}"])[0]
    return "qemu", f"a tiny kernel did not boot under KVM: {last}"
