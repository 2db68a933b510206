"""Passwords in the record: encrypted with a key that stands in a file beside it, never in the database.

Fernet: https://cryptography.io/en/latest/fernet/
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from control import tables
from core.errors import CredentialRejected

_T = tables.machine


class Seal:
    """The keys in a file, the newest first; the file is made when there is none, for its owner only."""

    def __init__(self, key_file: Path) -> None:
        self._file = key_file
        if not key_file.exists():
            fresh = self._fresh([Fernet.generate_key()])
            with suppress(FileExistsError):  # another process was quicker
                os.link(fresh, key_file)
            fresh.unlink()

    def close_up(self, password: str) -> str:
        """Return a password encrypted, "" for none."""
        return self._fernet().encrypt(password.encode()).decode() if password else ""

    def open_up(self, sealed: str, subject: str) -> str:
        """Return the password. Raise CredentialRejected when none of the keys fits."""
        try:
            return self._fernet().decrypt(sealed).decode() if sealed else ""
        except InvalidToken as error:
            raise CredentialRejected(
                f"the password of {subject} was encrypted with another key", subject, {"file": str(self._file)},
                "bring back the key file, or enroll it again with its password",
            ) from error  # fmt: skip

    def add_key(self) -> None:
        """Put a new key in front; what was encrypted before can still be read."""
        self._write([Fernet.generate_key(), *self._keys()])

    def drop_old_keys(self) -> None:
        """Keep the newest key only. Call it when everything was encrypted with that."""
        self._write(self._keys()[:1])

    def again(self, sealed: str) -> str:
        """Return what was encrypted encrypted with the newest key."""
        return self._fernet().rotate(sealed).decode()

    def _keys(self) -> list[bytes]:
        return self._file.read_bytes().split()

    def _fernet(self) -> MultiFernet:
        return MultiFernet([Fernet(key) for key in self._keys()])

    def _write(self, keys: list[bytes]) -> None:
        """Replace the file at once, so that a crash leaves the old keys or the new ones."""
        self._fresh(keys).replace(self._file)

    def _fresh(self, keys: list[bytes]) -> Path:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._file.parent, prefix=self._file.name)  # for its owner only
        with os.fdopen(handle, "wb") as out:
            out.write(b"\n".join(keys) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        return Path(name)


def encrypt_again(c: sa.Connection, seal: Seal) -> int:
    """Encrypt every password with the newest key; return how many. The old keys may go once this is committed."""
    rows = c.execute(sa.select(_T.c.id, _T.c.sealed_password).where(_T.c.sealed_password != "").with_for_update()).all()
    for row in rows:
        c.execute(sa.update(_T).where(_T.c.id == row.id).values(sealed_password=seal.again(row.sealed_password)))
    return len(rows)
