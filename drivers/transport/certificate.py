"""A server's certificate as its identity: scanned once, pinned, and then the only one that is trusted."""

from __future__ import annotations

import asyncio
import hashlib
import ssl

from core.errors import CredentialRejected, Unreachable
from drivers.transport.base import Shown

KIND = "x509-sha256"  # "x509-sha256 AB:CD:…" is what is pinned, as "ssh-ed25519 AAAA…" is of an SSH host


def scan_certificate(address: str, port: int = 443, timeout_s: float = 5.0) -> tuple[str, str]:
    """Return the certificate that answers (PEM) and its SHA-256 thumbprint "AB:CD:…". It blocks. Raise Unreachable."""
    try:
        pem = ssl.get_server_certificate((address, port), timeout=timeout_s)
    except OSError as error:
        raise Unreachable(
            f"{address}:{port} showed no certificate: {error}", f"host/{address}", {"seen": str(error)},
            "see whether the API answers there",
        ) from error  # fmt: skip
    return pem, hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest().hex(":").upper()


def trusting(pem: str) -> ssl.SSLContext:
    """Return a context that takes this very certificate and no other, whoever signed it and whatever name it bears."""
    context = ssl.create_default_context(cadata=pem)
    context.check_hostname = False
    context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    return context


def pinned_context(address: str, port: int, pinned: str, subject: str, timeout_s: float) -> ssl.SSLContext:
    """Return the context for a server whose thumbprint is pinned. It blocks. Raise CredentialRejected, Unreachable."""
    pem, found = scan_certificate(address, port, timeout_s)
    wanted = pinned.removeprefix(f"{KIND} ")
    if wanted != found:
        raise CredentialRejected(
            f"the certificate of {address}:{port} is {found}, not the pinned {wanted or '(none)'}", subject,
            {"seen": found, "wanted": wanted},
            "if it was renewed, enroll the host again with the new fingerprint; else somebody stands in between",
        )  # fmt: skip
    return trusting(pem)


async def scan(address: str, port: int = 443, timeout_s: float = 5.0) -> Shown:
    """Return the certificate that answers at an address, by its thumbprint. Raise Unreachable."""
    _, thumbprint = await asyncio.to_thread(scan_certificate, address, port, timeout_s)
    return Shown(KIND, f"{KIND} {thumbprint}", f"SHA256:{thumbprint}")
