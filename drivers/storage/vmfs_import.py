"""An image on its way into a vSphere datastore: converted to a stream, sent by an NFC lease, checked by its manifest.

A lease gives a VM with a disk that the stream is written to; the disk is then moved to where images lie, the VM goes.
Hosted disk formats cannot be put there as files: only this way turns them into disks of VMFS.
https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.HttpNfcLease.html
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx
from pyVmomi import vim

from core.errors import CredentialRejected, HostFault, Invalid, RackflowError, Unreachable
from drivers.transport.base import Progress
from drivers.transport.certificate import scan_certificate, trusting
from drivers.transport.vsphere import VsphereTransport
from drivers.transport.vsphere_files import Files
from drivers.transport.vsphere_place import read_one

_CHUNK_BYTES = 2**20
_TELL_S = 10.0  # a lease that hears nothing for five minutes ends
_READY_S = 120.0
_TIMEOUTS = httpx.Timeout(120.0, connect=10.0)
_DEVICE = vim.vm.device


async def convert(source: Path, format: str, target: Path) -> None:
    """Write a disk as a compressed stream of VMDK. Raise Invalid (qemu-img cannot read it)."""
    options = ["-O", "vmdk", "-o", "subformat=streamOptimized,adapter_type=lsilogic"]
    process = await asyncio.create_subprocess_exec(
        "qemu-img", "convert", "-f", format, *options, str(source), str(target),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        _, said = await process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):  # it has ended just now
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise Invalid(
            f"{source.name} cannot be converted to vmdk: {said.decode().strip()[-300:]}", f"image/{source.stem}",
            fix="import the image again",
        )


class Import:
    """One upload to one datastore."""

    def __init__(self, transport: VsphereTransport, files: Files, store: str, name: str) -> None:
        self._transport = transport
        self._files = files
        self._store = store
        self._name = name  # of the VM that is there meanwhile
        self._subject = f"host/{transport.endpoint.name}"

    async def run(self, stream: Path, size_mib: int, target: str, progress: Progress | None) -> None:
        """Send a stream and leave its disk at target. Raise Invalid (it arrived damaged), HostFault, Unreachable."""
        await self.clear()
        lease, vm = await self._begin(size_mib)
        try:
            await self._send(lease, stream, progress)
        except BaseException:
            await asyncio.shield(self._end("giving up an upload to", lambda: lease.HttpNfcLeaseAbort(None)))
            raise
        await self._end("ending an upload to", lambda: lease.HttpNfcLeaseComplete())
        disk = await self._disk_of(vm)
        gone = vim.vm.ConfigSpec(deviceChange=[_DEVICE.VirtualDeviceSpec(operation="remove", device=disk)])
        await self._transport.task("taking the disk from the import on", lambda _: vm.ReconfigVM_Task(gone))
        await self._files.move_disk(disk.backing.fileName, target)
        await self.clear()

    async def clear(self) -> None:
        """Take away the VM of an import that has ended or was killed."""
        folder = self._transport.place.vm_folder
        vm = await self._transport.call(
            "looking for an import on", lambda c: c.searchIndex.FindChild(folder, self._name)
        )
        if vm is not None:
            await self._transport.task("clearing an import on", lambda _: vm.Destroy_Task())

    async def _begin(self, size_mib: int) -> tuple[Any, Any]:
        """Return a lease that is ready, and its VM."""
        place = self._transport.place
        spec = vim.vm.VmImportSpec(configSpec=self._config(size_mib))
        host = place.hosts[0] if place.one_host else None
        lease = await self._transport.call(
            "asking for an upload to", lambda _: place.pool.ImportVApp(spec, place.vm_folder, host)
        )
        end = time.monotonic() + _READY_S
        while time.monotonic() < end:
            seen = await self._transport.call(
                "waiting for an upload to", lambda c: read_one(c, lease, ["state", "error", "info"])
            )
            if seen.get("state") == "ready":
                return lease, seen["info"].entity
            if seen.get("state") == "error":
                raise HostFault(
                    f"no upload to {self._store}: {seen['error'].msg}", self._subject, {"seen": str(seen["error"].msg)}
                )
            await asyncio.sleep(0.2)
        raise Unreachable(f"no upload to {self._store} within {_READY_S:g} s", self._subject)

    def _config(self, size_mib: int) -> Any:
        disk = _DEVICE.VirtualDisk(
            key=-2, controllerKey=-1, unitNumber=0, capacityInKB=size_mib * 1024,
            backing=_DEVICE.VirtualDisk.FlatVer2BackingInfo(
                fileName=f"[{self._store}]", diskMode="persistent", thinProvisioned=True
            ),
        )  # fmt: skip
        controller = _DEVICE.VirtualLsiLogicController(key=-1, busNumber=0, sharedBus="noSharing")
        return vim.vm.ConfigSpec(
            name=self._name, guestId="otherGuest64", numCPUs=1, memoryMB=32,
            files=vim.vm.FileInfo(vmPathName=f"[{self._store}]"),
            deviceChange=[
                _DEVICE.VirtualDeviceSpec(operation="add", device=controller),
                _DEVICE.VirtualDeviceSpec(operation="add", fileOperation="create", device=disk),
            ],
        )  # fmt: skip

    async def _send(self, lease: Any, stream: Path, progress: Progress | None) -> None:
        info = (await self._transport.call("sending to", lambda c: read_one(c, lease, ["info"])))["info"]
        place = next(one for one in info.deviceUrl if one.disk)
        url, context = await self._where(place)
        digest, size = hashlib.sha1(usedforsecurity=False), await asyncio.to_thread(os.path.getsize, stream)
        headers = {"Content-Type": "application/x-vnd.vmware-streamVmdk", "Content-Length": str(size), "Overwrite": "t"}
        try:
            async with httpx.AsyncClient(verify=context, timeout=_TIMEOUTS) as client:
                content = self._content(lease, stream, digest, size, progress)
                answer = await client.post(url, content=content, headers=headers)
                answer.raise_for_status()
        except httpx.HTTPError as error:
            self._lost(error)
        await self._compare(lease, digest.hexdigest(), size)

    def _lost(self, error: httpx.HTTPError) -> NoReturn:
        seen = str(error) or type(error).__name__
        raise Unreachable(
            f"the upload to {self._store} broke off: {seen}", self._subject, {"seen": seen}, "it begins anew"
        ) from error

    async def _where(self, place: Any) -> tuple[str, ssl.SSLContext]:
        """Return the URL to send to, and what trusts the host there: a vCenter sends us to one of its hosts."""
        mine, words = self._transport.endpoint, urlsplit(place.url)
        address, port = self._transport.reached
        at = f"[{address}]" if ":" in address else address
        if words.hostname in ("*", None, mine.address, address):
            return f"https://{at}:{port}{words.path}", self._transport.tls
        pem, _ = await asyncio.to_thread(scan_certificate, words.hostname, words.port or 443)
        found = hashlib.sha1(ssl.PEM_cert_to_DER_cert(pem), usedforsecurity=False).digest().hex(":").upper()
        if place.sslThumbprint and place.sslThumbprint.upper() != found:
            raise CredentialRejected(
                f"the certificate of {words.hostname} is not the one that {mine.name} names", self._subject,
                {"seen": found, "wanted": place.sslThumbprint}, "somebody may stand in between",
            )  # fmt: skip
        return place.url, trusting(pem)

    async def _content(
        self, lease: Any, stream: Path, digest: Any, size: int, progress: Progress | None
    ) -> AsyncIterator[bytes]:
        """Yield the stream, a MiB at a time, and keep the lease alive."""
        done, told = 0, time.monotonic()
        with await asyncio.to_thread(stream.open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield chunk
                digest.update(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, size)
                if time.monotonic() - told > _TELL_S:
                    told, percent = time.monotonic(), min(99, done * 100 // size)
                    await self._tell(lease, percent)

    async def _tell(self, lease: Any, percent: int) -> None:
        await self._transport.call("sending to", lambda _: lease.HttpNfcLeaseProgress(percent))

    async def _compare(self, lease: Any, sha1: str, size: int) -> None:
        """Compare what arrived with what was sent, where the server says it. Raise Invalid."""
        try:
            manifest = await self._transport.call("checking what arrived at", lambda _: lease.HttpNfcLeaseGetManifest())
        except RackflowError:
            return  # older than vSphere 5.1: its own checks of the stream must do
        for one in manifest or ():
            if (one.sha1 and one.sha1.lower() != sha1) or (one.size and one.size != size):
                raise Invalid(
                    f"the image arrived at {self._store} with another checksum", self._subject,
                    {"sent": sha1, "arrived": one.sha1, "size": one.size}, "try again; if it stays so, see the network",
                )  # fmt: skip

    async def _end(self, doing: str, call: Any) -> None:
        await self._transport.call(doing, lambda _: call())

    async def _disk_of(self, vm: Any) -> Any:
        found = await self._transport.call("looking at the import on", lambda c: read_one(c, vm, ["config.hardware"]))
        return next(one for one in found["config.hardware"].device if isinstance(one, _DEVICE.VirtualDisk))
