"""Talk to a QEMU by its monitor protocol (QMP)."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

_PAUSE_S = 0.05


class Failed(Exception):
    """QEMU refused, or is gone."""


class Qmp:
    """One connection; requests follow each other."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rw")
        self._greeted = False

    def call(self, command: str, **arguments: Any) -> Any:
        """Return what a command returns."""
        if not self._greeted:
            self._file.readline()
            self._greeted = True
            self.call("qmp_capabilities")
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while line := self._file.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise Failed(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]
        raise Failed("QEMU has ended")

    def save_memory(self, path: str) -> None:
        """Write memory and devices to a file; it must be paused."""
        self.call("migrate", uri=f"exec:cat > '{path}'")
        while (found := self.call("query-migrate"))["status"] not in ("completed", "failed", "cancelled"):
            time.sleep(_PAUSE_S)
        if found["status"] != "completed":
            raise Failed(found.get("error-desc", f"the migration to a file {found['status']}"))

    def wait_for_memory(self) -> None:
        """Wait until what it goes on from has been read."""
        while self.call("query-status")["status"] == "inmigrate":
            time.sleep(_PAUSE_S)
