"""Passwords in the record: encrypted, readable by nobody else, and with another key when somebody says so."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from control.secrets import Seal
from core.errors import CredentialRejected


def test_a_password_comes_back_and_does_not_stand_in_what_is_kept(tmp_path: Path) -> None:
    seal = Seal(tmp_path / "keys" / "secrets.key")
    kept = seal.close_up("hunter2")
    assert "hunter2" not in kept
    assert Seal(tmp_path / "keys" / "secrets.key").open_up(kept, "machine/m1") == "hunter2"
    assert seal.close_up("") == seal.open_up("", "machine/m1") == ""
    assert stat.S_IMODE((tmp_path / "keys" / "secrets.key").stat().st_mode) == 0o600
    assert [p.name for p in (tmp_path / "keys").iterdir()] == ["secrets.key"]


def test_after_the_old_key_is_gone_only_what_was_encrypted_again_can_be_read(tmp_path: Path) -> None:
    seal = Seal(tmp_path / "k")
    kept = seal.close_up("hunter2")
    seal.add_key()
    again = seal.again(kept)
    assert seal.open_up(kept, "machine/m1") == "hunter2"
    seal.drop_old_keys()
    assert seal.open_up(again, "machine/m1") == "hunter2"
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    with pytest.raises(CredentialRejected, match="another key") as caught:
        seal.open_up(kept, "machine/m1")
    assert kept not in str(caught.value.to_dict())
