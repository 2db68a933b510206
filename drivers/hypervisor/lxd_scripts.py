"""What the LXD driver runs on a host: fixed scripts, whose arguments are passed as arguments and never pasted in.

Archives are kept in SPOOL/ID: `KEY-SHA256.tar.gz` on its way out, `in-SHA256.tar.gz` on its way in. A file gets its
name when it is whole and on the disk; each writer has a temporary file of its own, because one that lost its connection
may be writing still.
"""

from __future__ import annotations

from drivers.parts import PART_GOES

SPOOL = "/var/lib/rackflow/lxd"
WRONG = "wrong"  # checksum

_PART = f"""set -eu; umask 077
mkdir -p "$1"
part=$(mktemp "$1/.part.XXXXXX")
{PART_GOES}"""

# $1 folder, $2 name, $3 file to be copied
COPY = f"""{_PART}
cp "$3" "$part"; sync "$part"; mv "$part" "$1/$2"
"""

# $1 folder, $2 key, $3 file. Prints the sha256. Archives of other keys are stale.
KEEP = f"""{_PART}
cp "$3" "$part"; sha=$(sha256sum "$part"); sha=${{sha%% *}}
sync "$part"; rm -f "$1"/*-*.tar.gz; mv "$part" "$1/$2-$sha.tar.gz"
echo "$sha"
"""

# $1 folder, $2 sha256; content comes in. Prints what was found if that is not it.
RECEIVE = f"""{_PART}
cat > "$part"; sha=$(sha256sum "$part"); sha=${{sha%% *}}
[ "$sha" = "$2" ] || {{ echo "{WRONG} $sha"; exit 0; }}
sync "$part"; mv "$part" "$1/in-$sha.tar.gz"
"""

# $1 folder; prints name and size of what is there
LIST = """[ ! -d "$1" ] || find "$1" -maxdepth 1 -name '*.tar.gz' -printf '%f %s\\n'"""

# $1 folder
CLEAR = """[ -e "$1" ] || exit 0
rm -rf --one-file-system "$1"; echo changed
"""

# $1 command line as a pattern, which no wrapper of it and not this script matches; prints the bytes that it has read
COUNTERS = """for pid in $(pgrep -f -- "$1"); do sed -n 's/^rchar: //p' "/proc/$pid/io"; done 2>/dev/null"""


def argv(script: str, *arguments: str) -> list[str]:
    return ["sh", "-c", script, "rackflow", *arguments]
