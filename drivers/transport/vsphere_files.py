"""Files in datastores, by the API's own web server: "[store] folder/file" is read, written and listed.

https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/ (FileManager; "Access to datastore files")
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn
from urllib.parse import quote

import httpx
from pyVmomi import vim

from core.errors import CredentialRejected, HostFault, Invalid, NotFound, RackflowError, Unreachable
from drivers.transport.vsphere import VsphereTransport
from drivers.transport.vsphere_errors import is_fault
from drivers.transport.vsphere_place import read, read_one

_PATH = re.compile(r"\[(?P<store>[^]]+)\] ?(?P<path>.*)")
_CHUNK_BYTES = 2**20
_TIMEOUTS = httpx.Timeout(60.0, connect=10.0)
_STATUS: dict[int, type[RackflowError]] = {401: CredentialRejected, 403: HostFault, 404: NotFound, 507: HostFault}


def split(path: str) -> tuple[str, str]:
    """Return the datastore's name and the path in it. Raise Invalid."""
    found = _PATH.fullmatch(path)
    if found is None:
        raise Invalid(f"{path!r} is no path in a datastore", f"datastore/{path}", fix="write it as [datastore] folder")
    return found["store"], found["path"].strip("/")


class Files:
    """The datastores of one place."""

    def __init__(self, transport: VsphereTransport) -> None:
        self._transport = transport
        self._endpoint = transport.endpoint
        self._subject = f"host/{transport.endpoint.name}"
        self._centre = ""

    # -- content

    async def get(self, path: str, *, max_bytes: int = 2**24) -> bytes:
        """Return a small file. Raise NotFound, HostFault (too large), Unreachable."""
        data = b""
        async for chunk in self.read(path):
            data += chunk
            if len(data) > max_bytes:
                raise HostFault(f"{path} is larger than {max_bytes} bytes", self._subject, {"path": path})
        return data

    async def read(self, path: str) -> AsyncIterator[bytes]:
        """Yield a file as it comes. Raise NotFound, Unreachable, HostFault."""
        try:
            async with self._client() as client, client.stream("GET", await self._url(path)) as answer:
                self._require(answer, path)
                async for chunk in answer.aiter_raw(_CHUNK_BYTES):
                    yield chunk
        except httpx.HTTPError as error:
            self._lost(path, error)

    async def put(self, path: str, content: bytes | AsyncIterator[bytes], size_bytes: int | None = None) -> None:
        """Write a file, bounded in memory. size_bytes: of a stream: ESXi wants it beforehand. Raise as `read`."""
        headers = {"Content-Type": "application/octet-stream"}
        if size_bytes is not None:
            headers["Content-Length"] = str(size_bytes)
        try:
            async with self._client() as client:
                self._require(await client.put(await self._url(path), content=content, headers=headers), path)
        except httpx.HTTPError as error:
            self._lost(path, error)

    def _client(self) -> httpx.AsyncClient:
        cookie = {"Cookie": self._transport.cookie}
        return httpx.AsyncClient(verify=self._transport.tls, timeout=_TIMEOUTS, headers=cookie)

    async def _url(self, path: str) -> str:
        store, inside = split(path)
        if not self._centre:
            centre = self._transport.place.datacenter
            names = await self._transport.call("naming", lambda c: read_one(c, centre, ["name"]))
            self._centre = names["name"]
        address, port = self._transport.reached
        host = f"[{address}]" if ":" in address else address
        return (
            f"https://{host}:{port}/folder/{quote(inside)}"
            f"?dcPath={quote(self._centre)}&dsName={quote(store)}"
        )

    def _require(self, answer: httpx.Response, path: str) -> None:
        if answer.status_code < 400:
            return
        kind = _STATUS.get(answer.status_code, Unreachable if answer.status_code >= 500 else HostFault)
        raise kind(
            f"{path} on {self._endpoint.name} answered {answer.status_code}", self._subject,
            {"path": path, "status": answer.status_code}, "look at the datastore",
        )  # fmt: skip

    def _lost(self, path: str, error: httpx.HTTPError) -> NoReturn:
        seen = str(error) or type(error).__name__
        raise Unreachable(
            f"{path} on {self._endpoint.name}: {seen}", self._subject, {"seen": seen}, "try again"
        ) from error

    # -- names

    async def stores(self) -> dict[str, dict[str, Any]]:
        """Return the datastores that all hosts of the place see, by name: capacity, free space, browser."""

        def ask(content: Any) -> dict[str, dict[str, Any]]:
            hosts = read(content, self._transport.place.hosts, ["datastore"])
            shared = set.intersection(*(set(values.get("datastore", [])) for _, values in hosts))
            paths = ["name", "summary.capacity", "summary.freeSpace", "summary.accessible", "browser"]
            return {
                values["name"]: values for _, values in read(content, shared, paths) if values.get("summary.accessible")
            }  # fmt: skip

        return await self._transport.call("listing the datastores of", ask)

    async def list(self, folder: str) -> dict[str, int]:
        """Return names and sizes (bytes) of what lies in a folder; of an absent one {}. Folders have size -1."""
        return await self._list(folder) or {}

    async def _list(self, folder: str) -> dict[str, int] | None:
        store, _ = split(folder)
        browser = (await self._store(store))["browser"]
        flags = vim.host.DatastoreBrowser.FileInfo.Details(
            fileType=True, fileSize=True, modification=False, fileOwner=False
        )
        spec = vim.host.DatastoreBrowser.SearchSpec(details=flags, matchPattern=["*"])
        try:
            found = await self._transport.task(
                "listing files", lambda _: browser.SearchDatastore_Task(folder, spec), subject=self._subject
            )
        except RackflowError as error:
            if is_fault(error.__cause__ or error, "FileNotFound"):
                return None
            raise
        return {
            one.path: -1 if isinstance(one, vim.host.DatastoreBrowser.FolderInfo) else int(one.fileSize or 0)
            for one in found.file
        }  # fmt: skip

    async def _store(self, name: str) -> dict[str, Any]:
        found = await self.stores()
        if name not in found:
            raise NotFound(
                f"there is no datastore {name} on {self._endpoint.name}", self._subject, {"there": sorted(found)},
                "name one that all its hosts see",
            )  # fmt: skip
        return found[name]

    async def make_folder(self, folder: str) -> bool:
        """Make a folder and those above it; return whether it was missing."""
        if await self._list(folder) is not None:
            return False

        def ask(content: Any) -> bool:
            try:
                content.fileManager.MakeDirectory(folder, self._transport.place.datacenter, True)
            except vim.fault.FileAlreadyExists:
                return False
            return True

        return await self._transport.call("making a folder on", ask)

    async def delete(self, path: str) -> bool:
        """Delete a file, or a folder with all in it; absent is fine."""
        return await self._absent_is_fine(
            "deleting a file", lambda c, dc: c.fileManager.DeleteDatastoreFile_Task(path, dc)
        )

    async def move(self, source: str, target: str) -> None:
        """Rename a file or folder; what is there is replaced. Raise HostFault (absent)."""
        centre = self._transport.place.datacenter
        await self._transport.task(
            "moving a file", lambda c: c.fileManager.MoveDatastoreFile_Task(source, centre, target, centre, True)
        )

    # -- disks

    async def make_disk(self, path: str, size_kib: int) -> None:
        """Make a blank disk, which takes room as it is written. Raise Busy (there), HostFault (full)."""
        spec = vim.VirtualDiskManager.FileBackedVirtualDiskSpec(
            diskType="thin", adapterType="lsiLogic", capacityKb=size_kib
        )
        await self._disk("making a disk", lambda m, dc: m.CreateVirtualDisk_Task(path, dc, spec))

    async def copy_disk(self, source: str, target: str, *, centre: Any = None) -> None:
        """Copy a disk. centre: the source's datacenter, if another. Raise Busy (there), HostFault (no source; full)."""
        await self._disk(
            "copying a disk", lambda m, dc: m.CopyVirtualDisk_Task(source, centre or dc, target, dc, None, False),
            timeout_s=3600,
        )  # fmt: skip

    async def move_disk(self, source: str, target: str) -> None:
        """Rename a disk with its parts; one that is there is replaced."""
        await self._disk("moving a disk", lambda m, dc: m.MoveVirtualDisk_Task(source, dc, target, dc, True, None))

    async def grow_disk(self, path: str, size_mib: int) -> None:
        """Make a disk larger that nothing uses."""
        await self._disk("growing a disk", lambda m, dc: m.ExtendVirtualDisk_Task(path, dc, size_mib * 1024, False))

    async def delete_disk(self, path: str) -> bool:
        """Delete a disk with its parts; absent is fine."""
        return await self._absent_is_fine(
            "deleting a disk", lambda c, dc: c.virtualDiskManager.DeleteVirtualDisk_Task(path, dc)
        )

    async def _disk(self, doing: str, begin: Callable[[Any, Any], Any], timeout_s: float = 600.0) -> None:
        centre = self._transport.place.datacenter
        await self._transport.task(doing, lambda c: begin(c.virtualDiskManager, centre), timeout_s=timeout_s)

    async def _absent_is_fine(self, doing: str, begin: Callable[[Any, Any], Any]) -> bool:
        try:
            await self._transport.task(doing, lambda c: begin(c, self._transport.place.datacenter))
        except RackflowError as error:
            if is_fault(error.__cause__ or error, "FileNotFound"):
                return False
            raise
        return True
