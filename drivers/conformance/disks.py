"""What guests, QEMU and backups do with disks in a host's dir datastore, done by qemu-io and qemu-img."""

from __future__ import annotations

import base64

from drivers.hypervisor.base import DiskAttachment
from drivers.transport.base import Transport

SIZE = 512  # of a text on a disk, at its begin: a sector, less is not read

# $1 file, $2 format, $3 text, padded
WRITE = """set -eu
text=$(mktemp); printf %s "$3" >"$text"
qemu-io -f "$2" -c "write -q -s $text 0 64k" "$1"; rm "$text"
"""

# $1 file, $2 format
READ = """set -eu
text=$(mktemp); qemu-img dd -U -f "$2" -O raw bs=512 count=1 if="$1" of="$text"; cat "$text"; rm "$text"
"""

# $1 … texts. Each copy after the first holds the clusters that differ only, and says of nothing that it lies on.
COPIES = """set -eu
cd "$(mktemp -d)"; n=0
for text; do
  if [ $n = 0 ]; then qemu-img create -q -f qcow2 0.qcow2 8M; qemu-io -c 'write -q -P 7 1M 3M' 0.qcow2
  else qemu-img create -q -f qcow2 -b "$((n - 1)).qcow2" -F qcow2 "$n.qcow2"; fi
  printf %s "$text" >text; qemu-io -f qcow2 -c 'write -q -s text 0 64k' "$n.qcow2"; n=$((n + 1))
done
while [ $n -gt 0 ]; do
  n=$((n - 1)); [ $n = 0 ] || qemu-img rebase -q -u -f qcow2 -b '' "$n.qcow2"
done
for text; do base64 -w 0 "$n.qcow2"; echo; n=$((n + 1)); done
rm -r "$PWD"
"""


class DiskTools:
    """By root on one host."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def _sh(self, script: str, *words: str) -> str:
        return (await self._transport.run(["sh", "-c", script, "sh", *words], sudo=True)).stdout

    async def write(self, disk: DiskAttachment, text: str) -> None:
        await self._sh(WRITE, disk.source, disk.format, text.ljust(SIZE))

    async def read(self, disk: DiskAttachment) -> str:
        return (await self._sh(READ, disk.source, disk.format)).strip()

    async def put(self, path: str, data: bytes) -> None:
        await self._transport.put(data, path, sudo=True)

    async def copies(self, *texts: str) -> list[bytes]:
        return list(map(base64.b64decode, (await self._sh(COPIES, *(text.ljust(SIZE) for text in texts))).split()))
