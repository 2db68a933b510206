"""What `dir` runs on a host: fixed scripts, whose arguments are passed as arguments and never pasted in.

One script for each verb, because a verb that takes one round trip keeps a deployment of many instances cheap, and
because what belongs together must not be cut apart by a lost connection.
"""

from __future__ import annotations

CHANGED = "changed"
WRONG, NO_IMAGE, IN_USE = 65, 66, 69  # exit codes

# $1 datastore
PREPARE = """set -eu
group=root; ! getent group kvm >/dev/null || group=kvm
for dir in "$1/images" "$1/instances"; do
  [ "$(stat -c '%G %a' "$dir" 2>/dev/null)" = "$group 2751" ] && continue
  mkdir -p "$dir"; chgrp "$group" "$dir"; chmod 2751 "$dir"; did=changed
done
echo "${did:-}"
"""

# $1 copied file, $2 its place as a verified image, $3 sha256
VERIFY = """set -eu
found=$(sha256sum "$1"); found=${found%% *}
[ "$found" = "$3" ] || { rm -f "$1"; echo "$found"; exit 65; }
mv "$1" "$2"
"""

# $1 datastore, $2 sha256. Put aside before its links are counted: no volume can be made from it any more.
DELETE_IMAGE = """set -eu
cd "$1/images" 2>/dev/null || exit 0
for aside in ".$2".*.going; do  # left by a call that was killed
  [ ! -e "$aside" ] || { back=${aside#.}; mv "$aside" "${back%.going}"; }
done
for image in "$2".*; do
  [ -e "$image" ] || continue
  mv "$image" ".$image.going"
  if [ "$(stat -c %h ".$image.going")" -gt 1 ]; then
    mv ".$image.going" "$image"
    find ../instances -samefile "$image" | cut -d/ -f3 | sort -u
    exit 69
  fi
  did=changed
done
rm -f ".$2".*
echo "${did:-}"
"""

# $1 folder, $2 file, $3 format, $4 size in MiB, $5 image or "", $6 its format. Synced before it gets its name: after a
# power loss a volume is whole or not there.
VOLUME = """set -eu; umask 007
[ ! -e "$2" ] || exit 0
if [ -n "$5" ]; then
  [ -e "$5" ] || exit 66
  mkdir -p -m 2771 "$1"
  if [ "$3" = raw ]; then
    qemu-img convert -O raw "$5" "$2.part"; qemu-img resize -q -f raw "$2.part" "$4M"
  else
    ln -f "$5" "$2.base" || { rmdir "$1" 2>/dev/null || :; [ ! -e "$5" ] || exit 1; exit 66; }
    qemu-img create -q -f "$3" -b "$5" -F "$6" "$2.part" "$4M"
  fi
else
  mkdir -p -m 2771 "$1"
  qemu-img create -q -f "$3" "$2.part" "$4M"
fi
sync "$2.part"; mv "$2.part" "$2"
"""

# $1 folder of an instance
DELETE_VOLUMES = """set -eu
[ -e "$1" ] || exit 0
rm -rf --one-file-system "$1"
echo changed
"""
