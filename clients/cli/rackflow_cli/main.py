"""`rackflow`: the entry point. Every error becomes words and an exit code, never a traceback."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from rackflow_cli.errors import CliError, ExitCode
from rackflow_cli.session import complain, session
from rackflow_cli.tree import NoColor, Quiet, root

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DEBUG = "RACKFLOW_DEBUG"


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"rackflow {version('rackflow')}")
        raise typer.Exit


def rackflow(
    quiet: Quiet = False,
    no_color: NoColor = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A private cloud out of racks of bare metal.

    First steps: `rackflow up`, then `rackflow apply -f BLUEPRINT`, then `rackflow instance list`.

    Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 denied, 5 conflict, 6 no capacity, 7 timed out,
    8 front-end unreachable.
    """


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    if "_RACKFLOW_COMPLETE" in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    session.reset()
    try:
        root(rackflow).main(args=list(argv), prog_name="rackflow")
    except SystemExit as end:  # how typer ends
        return end.code if isinstance(end.code, int) else ExitCode.FAILED if end.code else ExitCode.DONE
    except CliError as error:
        if os.environ.get(_DEBUG):
            raise
        complain(error)
        return error.code
    except BrokenPipeError:
        return _pipe_closed()
    except Exception as error:
        if os.environ.get(_DEBUG):
            raise
        if isinstance(error, OSError) and error.errno in _FULL:
            return _not_written(error)
        if isinstance(error, OSError) and error.filename:  # one that the person named
            complain(CliError(f"{error.filename}: {error.strerror}", fix="name another file or folder"))
            return ExitCode.FAILED
        complain(CliError(
            f"{type(error).__name__}: {error}", fix=f"this is a defect of rackflow; {_DEBUG}=1 shows where it broke"
        ))  # fmt: skip
        return ExitCode.FAILED
    finally:
        session.reset()
    return ExitCode.DONE


def _pipe_closed() -> int:
    """End without noise when the reader, e.g. `head`, has seen enough; later flushes go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.DONE


def _not_written(error: OSError) -> int:
    """Say why the output is not whole; what is still to be flushed goes nowhere."""
    _pipe_closed()
    complain(CliError(f"the output could not be written: {error.strerror}", fix="make room, or write it elsewhere"))
    return ExitCode.FAILED


def main() -> None:
    """Run the command line of this process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows no ✓ is no reason to break
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _pipe_closed()
    except OSError as error:
        code = _not_written(error)
    sys.exit(int(code))


if __name__ == "__main__":
    main()
