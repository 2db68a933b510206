"""LXD's words and the library's errors become ours."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
import requests
from pylxd.exceptions import ClientConnectionFailed, LXDAPIException

from core.errors import (
    Busy,
    Conflict,
    CredentialRejected,
    HostFault,
    Invalid,
    NotFound,
    RackflowError,
    Unreachable,
    Unsupported,
)
from drivers.hypervisor.lxd_api import LxdApi
from drivers.hypervisor.lxd_errors import translate
from drivers.hypervisor.lxd_images import LxdImages
from tests.unit.drivers.scripted import Scripted


def refused(text: str, status: int = 400) -> LXDAPIException:
    """Return pylxd's error for an answer (status 200: of an operation that failed)."""
    response = requests.Response()
    response.status_code = status
    response._content = json.dumps({"error": text} if status != 200 else {"metadata": {"err": text}}).encode()
    return LXDAPIException(response)


# Words as LXD 5.0.2 said them.
SAID = [
    ("Instance not found", 404, NotFound),
    ('Failed add validation for device "eth1": Instance DNS name "rf-1" already used on network', 400, Unsupported),
    ("Image not provided for instance creation", 200, NotFound),
    ('Failed creating instance record: Add instance info to the database: This "instances" entry already exists', 200,
     Conflict),
    ("The instance is already running", 200, Conflict),
    ("The instance is already stopped", 200, Conflict),
    ("The container is already frozen", 200, Conflict),
    ("Instance is running", 400, Conflict),
    ("Instance is not running", 400, Conflict),
    ('Failed start validation for device "eth0": IP address "10.0.0.3" already defined on another NIC', 200, Conflict),
    ('Failed to create instance start operation: Instance is busy running a "stop" operation', 200, Busy),
    ("Failed to create instance delete operation: A matching non-reusable operation has now succeeded", 200, Busy),
    ('Failed to start device "eth0": Parent device "nobr" doesn\'t exist', 200, HostFault),
    ('Failed shutting down instance, status is "Running": shutting down the container failed', 200, HostFault),
    ("write /var/lib/lxd/x: no space left on device", 200, HostFault),
    ("Image with same fingerprint already exists", 200, Conflict),
    ("open : no such file or directory", 500, NotFound),
    ("Invalid config: Unknown configuration key: x", 400, Invalid),
    ("not authorized", 403, CredentialRejected),
    ("something never seen", 500, HostFault),
]  # fmt: skip


@pytest.mark.parametrize(("text", "status", "kind"), SAID)
def test_lxds_words(text: str, status: int, kind: type[RackflowError]) -> None:
    found = translate(refused(text, status), "h3", "instance/x", "start rf-x")
    assert type(found) is kind
    assert found.subject == "instance/x"
    assert found.evidence == {"status": status, "seen": text}
    assert "h3" in found.message
    assert text in found.message


# Words of its client, of an import that failed.
CLIENT_SAID = [
    ('Error: Get "http://unix.socket/1.0": dial unix /var/lib/lxd/unix.socket: connect: connection refused',
     Unreachable),
    ('Error: Get "http://unix.socket/1.0": dial unix /var/lib/lxd/unix.socket: connect: no such file or directory',
     Unreachable),
    ('Error: Post "http://unix.socket/1.0/images": EOF', Unreachable),
    ('Error: Post "http://unix.socket/1.0/images": read unix @->/var/lib/lxd/unix.socket: read: connection reset by '
     'peer', Unreachable),
    ("Error: write /var/lib/lxd/images/x: no space left on device", HostFault),
    ("Error: LXD is shutting down", Busy),
    ("Error: Metadata tarball is missing metadata.yaml", Invalid),
    ("Error: Could not extract image metadata: metadata.yaml: Not found in archive", Invalid),
    ("sh: 1: lxc: not found", HostFault),
]  # fmt: skip


class Empty:
    """An LXD without images."""

    async def find(self, *_: str) -> None:
        return None

    async def get(self) -> dict[str, Any]:
        return {"environment": {"server_pid": 1}}


@pytest.mark.parametrize(("text", "kind"), CLIENT_SAID)
async def test_an_image_is_blamed_only_for_what_is_its_fault(text: str, kind: type[RackflowError]) -> None:
    code = 127 if "lxc: not found" in text else 1
    host = LxdImages(Scripted(lambda _: (code, "", text)), cast(LxdApi, Empty()), "/var/lib/lxd/unix.socket")
    with pytest.raises(kind) as caught:
        await host.import_image("/var/x.tar", "0" * 64, name="busybox")
    assert type(caught.value) is kind
    assert caught.value.evidence["seen"] == text


@pytest.mark.parametrize("error", [
    requests.ConnectionError("gone"), requests.ReadTimeout("late"), ClientConnectionFailed("none"), TimeoutError(),
    ConnectionResetError(),
])  # fmt: skip
def test_no_answer(error: Exception) -> None:
    assert type(translate(error, "h3", "host/h3", "get")) is Unreachable


def test_ours_pass_and_surprises_are_faults() -> None:
    ours = Busy("later")
    assert translate(ours, "h3", "", "") is ours
    assert type(translate(KeyError("metadata"), "h3", "host/h3", "get")) is HostFault
