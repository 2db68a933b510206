"""Host keys: shown to the person before anything is sent to a host that nobody vouched for."""

from __future__ import annotations

import sys

import typer

from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.session import session, talk

PORTS = {"esxi": 443}  # by driver; elsewhere SSH's
_HINTS = {"esxi": "The host's console shows its thumbprint, under View Support Information."}


def confirmed(address: str, port: int | None, yes: bool, driver: str | None = None) -> str | None:
    """Return the fingerprint of the key that a host shows, after the person agreed (or with `yes`).

    None: it shows none, being simulated, or of a driver that a package brings and that has its own ways.
    """
    if driver == "fake":
        return None
    usual = PORTS.get(driver or "", 22)
    asked = {"address": address, "port": port or usual, **({"driver": driver} if driver else {})}
    key = session.api().get("hosts/scan", asked)
    if not key["fingerprint"]:
        return None
    where = address if (port or usual) == usual else f"{address}:{port}"
    what = "certificate" if driver in PORTS else "host key"
    talk(f"{where} shows the {what} {key['algorithm']} {key['fingerprint']}")
    if yes:
        return str(key["fingerprint"])
    if not sys.stdin.isatty():
        raise CliError(
            f"nobody is here to say whether the {what} of {where} is right", ExitCode.USAGE,
            fix=f"--fingerprint {key['fingerprint']} if it is, or --yes to trust what it shows",
        )  # fmt: skip
    talk(_HINTS.get(driver or "", "On the host, `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints it."))
    if not typer.confirm("Is it the right one?", err=True):
        raise CliError(f"the {what} of {where} was not accepted: nothing was done", ExitCode.DENIED)
    return str(key["fingerprint"])
