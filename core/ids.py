"""Identifiers: sortable by time, safe as host names, file names, domain and container names."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
_PAIRS = [one + other for one in _ALPHABET for other in _ALPHABET]
PREFIX = "rf-"  # of everything rackflow names on a host


_last = 0
_making = threading.Lock()


def new_id() -> str:
    """Return 20 characters: 48 bits of milliseconds, then 52 random bits; of one process, each above the one before."""
    global _last
    with _making:
        number = (time.time_ns() // 1_000_000 << 52) | secrets.randbits(52)
        if number <= _last:
            number = _last + 1 + secrets.randbits(20)
        _last = number
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(90, -1, -10)])


def new_ids(count: int) -> list[str]:
    """Do as `new_id` for many ids, each above the one before."""
    global _last
    steps = secrets.token_bytes(3 * count)
    found: list[str] = []
    with _making:
        number = max((time.time_ns() // 1_000_000 << 52) | secrets.randbits(52), _last + 1)
        begin, prefix = -1, ""
        for n in range(0, 3 * count, 3):
            number += 1 + (int.from_bytes(steps[n : n + 3]) & 0xFFFFF)
            if number >> 40 != begin:
                begin = number >> 40
                prefix = "".join([_PAIRS[begin >> shift & 1023] for shift in range(50, -1, -10)])
            found.append(
                f"{prefix}{_PAIRS[number >> 30 & 1023]}{_PAIRS[number >> 20 & 1023]}"
                f"{_PAIRS[number >> 10 & 1023]}{_PAIRS[number & 1023]}"
            )
        _last = number
    return found


def on_host(instance_id: str) -> str:
    """Return the name that an instance bears on its host (libvirt domain, LXD container)."""
    return PREFIX + instance_id


def from_host(name: str) -> str | None:
    """Return the instance id for a name on a host, or None if it is not one of ours."""
    rest = name.removeprefix(PREFIX)
    return rest if rest != name and len(rest) == 20 and set(rest) <= set(_ALPHABET) else None


def mac_address(instance_id: str, index: int) -> str:
    """Return a stable MAC address in QEMU's range 52:54:00 for the index-th NIC of an instance."""
    digest = hashlib.sha256(f"{instance_id}/{index}".encode()).hexdigest()
    return f"52:54:00:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"
