"""Requests that cannot be met: each gets a clear answer and the right exit code, and nothing is left of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.cloud import Cloud
from tests.labs import Lab

FAILED, USAGE, NOT_FOUND, CONFLICT, NO_CAPACITY, TIMED_OUT, NO_FRONT_END = 1, 2, 3, 5, 6, 7, 8


@pytest.fixture(autouse=True)
def _clean(front_end: Cloud) -> Iterator[None]:
    yield
    for noun, names in (("instances", "bad-"), ("images", "bad-"), ("networks", "bad-")):
        for row in front_end.call("GET", f"/v1/{noun}"):
            if row["name"].startswith(names):
                front_end.run(noun.removesuffix("s"), "delete", row["name"], "--yes")


def create(front_end: Cloud, *more: str) -> tuple[int, str]:
    done = front_end.run("instance", "create", "bad-one", "--image", "busybox", "--memory", "32MiB", *more)
    return done.returncode, done.stderr


def test_an_unknown_image_and_an_unknown_instance(front_end: Cloud) -> None:
    done = front_end.run("instance", "create", "bad-one", "--image", "nothing")
    assert done.returncode == NOT_FOUND
    assert "nothing" in done.stderr
    assert front_end.run("instance", "show", "nobody").returncode == NOT_FOUND


def test_what_could_never_fit_says_which_constraint_on_which_host(front_end: Cloud) -> None:
    code, said = create(front_end, "--memory", "64GiB")
    assert code == NO_CAPACITY
    assert "h3" in said
    assert "memory" in said
    record = json.loads(front_end.rackflow("explain", "bad-one", "-o", "json"))
    assert len(record["hosts"]) == 4
    assert record["change"], "the smallest change that would fit"


def test_addresses_used_up(front_end: Cloud, tmp_path: Path) -> None:
    file = tmp_path / "net.yaml"
    file.write_text(
        "networks:\n- name: bad-net\n  bridge: br0\n  subnet: 198.18.17.0/24\n"
        "  ranges: [{first: 198.18.17.60, last: 198.18.17.60}]\n"
    )
    front_end.rackflow("apply", "-f", str(file))
    vm = ["--image", "tiny", "--memory", "128MiB", "--network", "bad-net"]
    front_end.rackflow("instance", "create", "bad-first", *vm)
    done = front_end.run("instance", "create", "bad-second", *vm, "--timeout", "6")
    assert done.returncode in (NO_CAPACITY, TIMED_OUT)
    assert "address" in done.stderr


def test_the_same_name_and_the_same_request_twice(front_end: Cloud) -> None:
    assert create(front_end)[0] == 0
    assert create(front_end)[0] == CONFLICT


def test_a_blueprint_with_errors_names_file_line_and_field(front_end: Cloud, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "instances:\n- name: bad-a\n  image: busybox\n  memroy: 32MiB\n- name: bad-b\n  image: busybox\n  memory: -5\n"
        "- name: bad-a\n  image: busybox\n"
    )
    done = front_end.run("apply", "-f", str(file))
    assert done.returncode == USAGE
    for part in ("wrong.yaml:4", "memroy", "wrong.yaml:7", "wrong.yaml:8", "bad-a"):
        assert part in done.stderr, done.stderr
    assert not [i for i in front_end.call("GET", "/v1/instances") if i["name"].startswith("bad-")]


class _Short(BaseHTTPRequestHandler):
    """Promises more bytes than it sends."""

    def __init__(self, body: bytes, promise: int, *args: object) -> None:
        self.body, self.promise = body, promise
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(self.promise))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_images_with_a_wrong_checksum_or_cut_short(front_end: Cloud, lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(b"\x00" * 2**20)
    done = front_end.run("image", "import", "bad-sum", str(file), "--sha256", hashlib.sha256(b"else").hexdigest())
    assert done.returncode in (FAILED, USAGE)
    assert "checksum" in done.stderr or "sha256" in done.stderr
    assert front_end.show("image", "bad-sum")["state"] == "failed"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Short, b"\x00" * 1000, 2**20))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/disk.raw"
    done = front_end.run("image", "import", "bad-short", url, "--timeout", "90")
    server.shutdown()
    assert done.returncode != 0
    assert front_end.run("instance", "create", "bad-one", "--image", "bad-sum").returncode != 0


def test_a_full_datastore_sends_the_vm_elsewhere(front_end: Cloud, lab: Lab) -> None:
    """Of two KVM hosts one has no room left in its datastore, which the record does not know yet."""
    vm = ["--image", "tiny", "--memory", "128MiB"]
    front_end.rackflow("instance", "create", "bad-probe", *vm)
    host = front_end.show("instance", "bad-probe")["host"]
    store = "/var/lib/rackflow/datastore"
    lab.run(host, f"mount -t tmpfs -o size=4m none {store}; mkdir -p {store}/images {store}/instances")
    try:
        front_end.rackflow("instance", "create", "bad-vm", *vm)
        assert front_end.show("instance", "bad-vm")["host"] != host
        assert front_end.show("instance", "bad-vm")["state"] == "running"
    finally:
        lab.run(host, f"umount {store}")


def test_no_front_end(front_end: Cloud) -> None:
    env = {**front_end.env, "RACKFLOW_RUN_DIR": "/run/rackflow-nowhere"}
    done = Cloud(front_end.base, env, "", "").run("instance", "list")
    assert done.returncode == NO_FRONT_END
    assert "rackflow up" in done.stderr
