"""From a microVM's configuration to the command line of QEMU's microvm. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

QMP_FD = 3
# QEMU's emulated clock cannot be calibrated without a PIT that ticks in time; Firecracker's guests have kvm-clock.
_OWN_ARGS = "tsc_early_khz=2000000"


def command_line(config: Mapping[str, Any], incoming: str = "") -> list[str]:
    """Return argv of QEMU: stopped, QMP on a descriptor that is open, serial console on stdin and stdout.

    incoming: a file of memory that it goes on from.
    """
    machine, boot = config["machine-config"], config["boot-source"]
    argv = [
        "qemu-system-x86_64", "-machine", "microvm,acpi=on,pit=on,pic=on,rtc=on", "-accel", "tcg,tb-size=32",
        "-cpu", "max", "-smp", str(machine["vcpu_count"]), "-m", str(machine["mem_size_mib"]), "-nodefaults",
        "-no-user-config", "-display", "none", "-no-reboot", "-S", "-serial", "stdio", "-device", "i8042",
        "-chardev", f"socket,id=qmp,fd={QMP_FD}", "-mon", "chardev=qmp,mode=control",
        "-kernel", boot["kernel_image_path"], "-append", _arguments(config),
    ]  # fmt: skip
    if boot.get("initrd_path"):
        argv += ["-initrd", boot["initrd_path"]]
    for drive in config["drives"]:
        name, read_only = drive["drive_id"], "on" if drive.get("is_read_only") else "off"
        path = drive["path_on_host"].replace(",", ",,")
        cache = "writeback" if drive.get("cache_type") == "Writeback" else "unsafe"
        argv += ["-drive", f"id=d-{name},file={path},format=raw,if=none,readonly={read_only},cache={cache}"]
        argv += ["-device", f"virtio-blk-device,drive=d-{name}"]
    for nic in config["network-interfaces"]:
        name, tap = nic["iface_id"], nic["host_dev_name"]
        mac = f",mac={nic['guest_mac']}" if nic.get("guest_mac") else ""
        argv += ["-netdev", f"tap,id=n-{name},ifname={tap},script=no,downscript=no"]
        argv += ["-device", f"virtio-net-device,netdev=n-{name}{mac}"]
    if "balloon" in config:
        oom = "on" if config["balloon"]["deflate_on_oom"] else "off"
        argv += ["-device", f"virtio-balloon-device,id=balloon,deflate-on-oom={oom}"]
    if "entropy" in config:
        argv += ["-device", "virtio-rng-device"]
    if incoming:
        argv += ["-incoming", f"exec:cat '{incoming}'"]
    return argv


def _arguments(config: Mapping[str, Any]) -> str:
    words = [config["boot-source"].get("boot_args") or "reboot=k panic=1 pci=off", _OWN_ARGS]
    root = next((drive for drive in config["drives"] if drive["is_root_device"]), None)
    if root is not None:  # as Firecracker does
        words += [f"root={root['partuuid'] and 'PARTUUID=' + root['partuuid']}" if root.get("partuuid")
                  else "root=/dev/vda", "ro" if root.get("is_read_only") else "rw"]  # fmt: skip
    return " ".join(words)
