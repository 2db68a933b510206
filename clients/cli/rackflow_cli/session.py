"""What holds for one run of the command: how much to say, in which colours, and the talk itself.

Standard output is for data; everything else is talk and goes to standard error.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from rackflow_cli.errors import CliError, evidence_lines

if TYPE_CHECKING:
    from rackflow_cli.connection import Api

_STYLES = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36", "dim": "2", "bold": "1"}


@dataclass
class Session:
    """Switches of this run, and the one connection that it needs."""

    quiet: bool = False
    no_color: bool = False
    _api: Api | None = field(default=None, repr=False)

    def colors(self, stream: TextIO) -> bool:
        """Tell whether that stream gets colours (no-color.org; a dumb terminal and a file get none)."""
        plain = self.no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return not plain and stream.isatty()

    def api(self) -> Api:
        """Return the connection to the front-end, made on first use."""
        if self._api is None:
            from rackflow_cli.connection import Api
            from rackflow_cli.endpoint import find

            self._api = Api(find())
        return self._api

    def reset(self) -> None:
        """Begin anew (several runs in one process: tests)."""
        if self._api is not None:
            self._api.close()
        self.quiet, self.no_color, self._api = False, False, None


session = Session()


def paint(text: str, style: str, stream: TextIO) -> str:
    """Return the text in a style, if the stream gets colours."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if text and session.colors(stream) else text


def talk(text: str) -> None:
    """Say something to the person, unless told to be quiet."""
    if not session.quiet:
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Say something that matters even when quiet."""
    print(f"{paint('warning:', 'yellow', sys.stderr)} {text}", file=sys.stderr, flush=True)


def complain(error: CliError) -> None:
    """Say what went wrong, what was seen and what to do next."""
    lines = [f"{paint('error:', 'red', sys.stderr)} {error.message}"]
    lines += [f"  {line}" for line in evidence_lines(error.evidence, error.message)]
    if error.fix:
        lines.append(f"{paint('what to do:', 'cyan', sys.stderr)} {error.fix}")
    print("\n".join(lines), file=sys.stderr, flush=True)
