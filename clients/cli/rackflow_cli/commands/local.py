"""Verbs that act on this machine: each starts one of rackflow's rooms as a process and ends with its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.tree import group

app = group("On this machine.")

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def become(module: str, arguments: Sequence[str]) -> None:
    """Replace this process by `python -m MODULE`; -P: a folder of that name where the user stands is not taken."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])


def _passed_on(module: str, verb: str | None, help: str) -> None:
    name = verb or module

    @app.command(name, context_settings=_PASS_ON, help=help, add_help_option=False)
    def run(ctx: typer.Context) -> None:
        become(module, [*([verb] if verb else []), *ctx.args])


_passed_on("daemon", "up", "Start rackflow's processes (--detach: in the background).")
_passed_on("daemon", "down", "Stop rackflow's processes.")
_passed_on("daemon", "status", "Show rackflow's processes and addresses.")
_passed_on("daemon", "logs", "Show the logs of rackflow's processes ([PROCESS] [-f]).")
_passed_on("lab", None, "A small data centre on this machine: up kvm:2 lxd:2, down, status, crash, start, cut, join, "
           "freeze, thaw, delay, ssh.")  # fmt: skip


@app.command()
def schema(
    noun: Annotated[str, typer.Argument(metavar="NOUN", help="instance, image, host, … or blueprint.")] = "blueprint",
) -> None:
    """Print the JSON Schema of a noun or of a whole blueprint."""
    become("blueprints", ["schema", noun])


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh, fish or powershell.")] = "",
) -> None:
    """Print the tab completion for a shell.

    bash: eval "$(rackflow completion bash)" in ~/.bashrc. zsh: the same in ~/.zshrc, after compinit.
    fish: rackflow completion fish > ~/.config/fish/completions/rackflow.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    named = shell or os.path.basename(os.environ.get("SHELL", "bash"))
    if named not in ("bash", "zsh", "fish", "powershell", "pwsh"):
        raise CliError(
            f"there is no completion for {named!r}", ExitCode.USAGE, fix="name bash, zsh, fish or powershell"
        )
    print(get_completion_script(prog_name="rackflow", complete_var="_RACKFLOW_COMPLETE", shell=named))
