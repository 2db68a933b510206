"""What writes a file on a host under another name first, and leaves nothing of it when it is ended."""

from __future__ import annotations

# sh: the file "$part" goes when the shell ends, by itself or by a signal. From the first signal on no other is heard,
# nor by the rm: `timeout` passes on to its whole group the one that the group was sent already. PIPE: nobody reads what
# it says any more. dash runs no EXIT trap for a signal without one of its own (dash 0.5.12).
PART_GOES = """gone() { trap "" HUP INT PIPE TERM; trap - EXIT; rm -f "$part"; exit "$1"; }
trap 'gone $?' EXIT; trap 'gone 1' HUP INT PIPE TERM
"""
