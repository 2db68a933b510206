"""Enrolling hosts: the host key is shown and asked about."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from rackflow_cli.commands.host import name_for, target
from tests.unit.cli.cli_front_end import FrontEnd, operation
from tests.unit.cli.conftest import Cli

KEY = {"algorithm": "ssh-ed25519", "public": "ssh-ed25519 AAAA", "fingerprint": "SHA256:abc"}


@pytest.fixture
def host(front_end: FrontEnd) -> FrontEnd:
    front_end.on("GET", "hosts/scan", 200, KEY)
    front_end.on("POST", "hosts", 202, {"request": "r", "operations": [operation("done", "h1", "enroll")]})
    front_end.on("GET", "operations", 200, [operation("done", "h1", "enroll")])
    front_end.on("GET", "hosts/h1", 200, {"name": "h1", "state": "ready"})
    return front_end


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("root@10.0.0.1", {"user": "root", "address": "10.0.0.1"}),
        ("h1.example.org", {"address": "h1.example.org"}),
        ("me@h1:2222", {"user": "me", "address": "h1", "port": 2222}),
        ("me@[fe80::1]:22", {"user": "me", "address": "fe80::1", "port": 22}),
    ],
)
def test_target(text: str, found: dict[str, object]) -> None:
    assert target(text) == found


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("h1.example.org", "h1"), ("10.1.0.5", "host-10-1-0-5"), ("Rack_7", "rack-7"), ("fe80::1", "fe80-1"),
        ("7up", "host-7up"),
    ],
)
def test_name_for(address: str, name: str) -> None:
    assert name_for(address) == name


def test_a_given_fingerprint_needs_no_question(host: FrontEnd, cli: Cli) -> None:
    said = cli(
        "host", "enroll", "root@10.0.0.1:2222", "--name", "h1", "--driver", "kvm", "--key", "/k", "--fingerprint",
        "SHA256:abc", "--cpus", "4", "--memory", "8GiB", "-l", "disk=ssd",
    )  # fmt: skip
    assert said.code == 0
    assert host.last("POST", "hosts").body == {
        "name": "h1", "user": "root", "address": "10.0.0.1", "port": 2222, "driver": "kvm", "key_file": "/k",
        "fingerprint": "SHA256:abc", "cpus": 4, "memory": "8GiB", "labels": {"disk": "ssd"},
    }  # fmt: skip
    assert not [a for a in host.asked if a.path == "hosts/scan"]


def test_yes_shows_the_key_and_trusts_it(host: FrontEnd, cli: Cli) -> None:
    said = cli("host", "enroll", "10.0.0.1", "--name", "h1", "--yes")
    assert "10.0.0.1 shows the host key ssh-ed25519 SHA256:abc" in said.err
    assert host.last("POST", "hosts").body == {"name": "h1", "address": "10.0.0.1", "fingerprint": "SHA256:abc"}
    assert host.last("GET", "hosts/scan").query == {"address": "10.0.0.1", "port": "22"}


def test_nobody_to_ask_is_a_refusal_that_says_how(host: FrontEnd, cli: Cli) -> None:
    said = cli("host", "enroll", "10.0.0.1", "--name", "h1")
    assert said.code == 2
    assert "--fingerprint SHA256:abc" in said.err
    assert not [a for a in host.asked if a.method == "POST"]


@pytest.mark.parametrize(("answer", "code", "posts"), [("y", 0, 1), ("n", 4, 0), ("", 4, 0)])
def test_a_person_is_asked(host: FrontEnd, answer: str, code: int, posts: int) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rackflow_cli.main", "host", "enroll", "10.0.0.1", "--name", "h1"],
        stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(slave)
    os.write(master, f"{answer}\n".encode())
    _, err = process.communicate(timeout=30)
    os.close(master)
    assert process.returncode == code
    assert "Is it the right one? [y/N]" in err
    assert len([a for a in host.asked if a.method == "POST"]) == posts


def test_retire(front_end: FrontEnd, cli: Cli) -> None:
    done = operation("done", "h1", "retire")
    front_end.on("DELETE", "hosts/h1", 202, {"request": "r", "operations": [done]})
    front_end.on("GET", "operations", 200, [done])
    assert cli("host", "retire", "h1", "--force").code == 0
    assert front_end.last("DELETE", "hosts/h1").query == {"force": "true"}


def test_an_api_behind_ssh(host: FrontEnd, cli: Cli) -> None:
    words = ("host", "enroll", "me@10.0.0.9", "--name", "h1", "--driver", "esxi", "--password-file", "/p",
             "--ssh", "j@b:2")  # fmt: skip
    refused = cli(*words)
    assert (refused.code, "--fingerprint SHA256:" in refused.err) == (2, True)
    shown = (("--fingerprint", "SHA256:A", "--ssh-fingerprint", "SHA256:s"), "SHA256:s"), (("--yes",), "SHA256:abc")
    for given, pinned in shown:
        assert cli(*words, *given).code == 0
        body = host.last("POST", "hosts").body
        assert body["ssh"] == {"user": "j", "address": "b", "port": 2, "fingerprint": pinned}
        assert body.get("fingerprint") == ("SHA256:A" if "--fingerprint" in given else None)
