"""What kind of image a file is, by qemu-img and tar; and conversion to qcow2. Runs on the front-end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import HostFault, Invalid

KEPT = ("qcow2", "tar")  # other formats are converted to qcow2
_MIB = 2**20
_BOOT_SIGNATURE = b"\x55\xaa"  # at byte 510, of an MBR and of the protective MBR before a GPT


@dataclass(frozen=True)
class Found:
    """format: qcow2, raw, vmdk, …, or tar."""

    format: str
    virtual_size_mib: int = 0

    @property
    def needs_conversion(self) -> bool:
        return self.format not in KEPT


async def recognise(path: Path, *, fmt: str, kind: str, source: str) -> Found:
    """Look into a file. fmt: auto or what it must be; kind: vm or container. Raise Invalid, HostFault (no qemu-img)."""
    found = await (_container(path, source) if kind == "container" else _disk(path, fmt, source))
    if fmt not in ("auto", "", found.format):
        raise _invalid(source, f"it is {found.format}, not {fmt}", {"found": found.format, "wanted": fmt})
    return found


async def _container(path: Path, source: str) -> Found:
    # LXD's unified image: one tarball with metadata.yaml and rootfs/ (https://documentation.ubuntu.com/lxd, images).
    # It is listed whole: that is what finds a cut one.
    code, out, err = await run_tool(["tar", "-tf", str(path)])
    if code != 0:
        raise _invalid(source, (err.strip() or "tar cannot read it").splitlines()[0], {"seen": err[-2000:]})
    if not {"metadata.yaml", "./metadata.yaml"} & set(out.splitlines()):
        raise _invalid(source, "it is no LXD image: a tarball with metadata.yaml and rootfs/", {})
    return Found("tar")


async def _disk(path: Path, fmt: str, source: str) -> Found:
    code, out, err = await run_tool(["qemu-img", "info", "--output=json", str(path)])
    if code != 0:
        raise _invalid(source, err.strip().splitlines()[-1] if err.strip() else "qemu-img cannot read it", {})
    facts: dict[str, Any] = json.loads(out)
    details = facts.get("format-specific", {}).get("data", {})
    others = _others(facts, details, path)
    if others:  # they would make QEMU on every host read a file of the image maker's choice
        raise _invalid(source, f"it refers to another file ({others[0]})", {"refers_to": others})
    if details.get("corrupt"):
        raise _invalid(source, "it is marked corrupt", {})
    if facts["format"] == "raw" and fmt != "raw" and not await asyncio.to_thread(_boots, path):
        raise _invalid(source, "it is no disk image (or a raw one without a boot sector: then say format raw)", {})
    if facts["format"] == "qcow2":
        await _check(path, source)
    return Found(str(facts["format"]), -(-int(facts["virtual-size"]) // _MIB))


def _others(facts: dict[str, Any], details: dict[str, Any], path: Path) -> list[str]:
    """Return the files that an image needs beside itself: backing file, data file, extents of a VMDK."""
    extents = [extent["filename"] for extent in details.get("extents", [])]
    named = [facts.get("backing-filename"), details.get("data-file"), *extents]
    return [str(name) for name in named if name and name != str(path)]


async def _check(path: Path, source: str) -> None:
    code, _, err = await run_tool(["qemu-img", "check", "-q", "-f", "qcow2", str(path)])
    if code not in (0, 3):  # 3: clusters that nobody uses, which does no harm
        raise _invalid(source, "it is cut short or damaged", {"seen": err[:2000], "exit_code": code})


def _boots(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(512)[510:] == _BOOT_SIGNATURE


async def convert(source: Path, fmt: str, target: Path) -> None:
    """Convert a disk image to qcow2. Raise HostFault, Invalid."""
    code, _, err = await run_tool(["qemu-img", "convert", "-f", fmt, "-O", "qcow2", str(source), str(target)])
    if code != 0:
        await asyncio.to_thread(target.unlink, missing_ok=True)
        if "No space left" in err:
            raise HostFault(f"the image store {target.parent} is full", "", {"seen": err}, "make room there")
        raise _invalid(str(source), err.strip(), {})


def _invalid(source: str, why: str, evidence: dict[str, Any]) -> Invalid:
    return Invalid(f"{source} cannot be used: {why}", f"image/{source}", evidence, "name another file")


async def run_tool(argv: Sequence[str]) -> tuple[int, str, str]:
    """Run a tool of the front-end; return its exit code and what it printed. Raise HostFault (not installed)."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe, env=_ENV)
    except FileNotFoundError as error:
        raise HostFault(
            f"{argv[0]} is not installed on the front-end", "", {}, "apt-get install qemu-utils"
        ) from error
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):  # it has ended just now
                process.kill()
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


_ENV = {"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
