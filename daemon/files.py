"""Small files: written whole or not at all, never readable by others when they hold a secret."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_private(file: Path, text: str, mode: int = 0o600) -> None:
    """Write a file beside its place and rename it there. Never open wider than mode, at no moment."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as out:
        os.fchmod(out.fileno(), mode)
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)


def ensure_secret(file: Path) -> str:
    """Return the secret in the file; the first time, make one of 192 random bits (mode 0600)."""
    try:
        if found := file.read_text().strip():
            return found
    except FileNotFoundError:
        pass
    text = secrets.token_urlsafe(24)
    write_private(file, text + "\n")
    return text
