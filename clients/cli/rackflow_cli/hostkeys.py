"""Host keys: shown to the person before anything is sent to a host that nobody vouched for."""

from __future__ import annotations

import sys

import typer

from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.session import session, talk


def confirmed(address: str, port: int, yes: bool) -> str:
    """Return the fingerprint of the key that a host shows, after the person agreed (or with `yes`)."""
    key = session.api().get("hosts/scan", {"address": address, "port": port})
    where = address if port == 22 else f"{address}:{port}"
    talk(f"{where} shows the host key {key['algorithm']} {key['fingerprint']}")
    if yes:
        return str(key["fingerprint"])
    if not sys.stdin.isatty():
        raise CliError(
            f"nobody is here to say whether the host key of {where} is right", ExitCode.USAGE,
            fix=f"--fingerprint {key['fingerprint']} if it is, or --yes to trust what it shows",
        )  # fmt: skip
    talk("On the host, `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints it.")
    if not typer.confirm("Is it the right one?", err=True):
        raise CliError(f"the host key of {where} was not accepted: nothing was done", ExitCode.DENIED)
    return str(key["fingerprint"])
