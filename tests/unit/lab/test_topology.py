"""Which hosts the words name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import Invalid, NotFound
from lab.settings import LabSettings
from lab.topology import MAX_HOSTS, parse, read, save


def names(*words: str) -> list[tuple[str, str]]:
    return [(host.name, host.kind) for host in parse(words).hosts]


def test_hosts_are_numbered_through() -> None:
    assert names("kvm:2", "lxd:1") == [("h1", "kvm"), ("h2", "kvm"), ("h3", "lxd")]
    assert names("lxd") == [("h1", "lxd")]
    assert names("lxd:1", "kvm:1") == [("h1", "lxd"), ("h2", "kvm")]


@pytest.mark.parametrize("words", [[], ["esxi:1"], ["kvm:x"], ["kvm:-1"], ["kvm:0"], [f"kvm:{MAX_HOSTS + 1}"]])
def test_bad_words(words: list[str]) -> None:
    with pytest.raises(Invalid):
        parse(words)


def test_record_comes_back(tmp_path: Path) -> None:
    settings = LabSettings(tmp_path, tmp_path, tmp_path)
    assert read(settings).hosts == ()
    wanted = replace(parse(["kvm:1", "lxd:1"]), complete=True)
    save(settings, wanted)
    assert read(settings) == wanted
    (tmp_path / "lab.json").write_text('{"hosts": [')
    assert read(settings).hosts == ()


def test_unknown_host_is_told_what_there_is() -> None:
    with pytest.raises(NotFound, match="h1, h2"):
        parse(["kvm:2"]).host("h3")


def test_addresses_do_not_meet() -> None:
    settings = LabSettings(Path(), Path(), Path())
    last = parse([f"kvm:{MAX_HOSTS}"]).hosts[-1]
    assert last.last_octet < 100  # where the VMs begin
    assert settings.containers(1) == "198.18.21.0/24"
    assert settings.management(last.last_octet) == "198.18.16.60"
