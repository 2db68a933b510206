"""What `dir` runs on a host: fixed scripts, whose arguments are passed as arguments and never pasted in.

One script for each verb, because a verb that takes one round trip keeps a deployment of many instances cheap, and
because what belongs together must not be cut apart by a lost connection.
"""

from __future__ import annotations

from drivers.parts import PART_GOES

CHANGED = "changed"
WRONG, NO_IMAGE, FULL, IN_USE = 65, 66, 67, 69  # exit codes

# $1 datastore
PREPARE = """set -eu
group=root; ! getent group kvm >/dev/null || group=kvm
for dir in "$1/images" "$1/instances"; do
  [ "$(stat -c '%G %a' "$dir" 2>/dev/null)" = "$group 2751" ] && continue
  mkdir -p "$dir"; chgrp "$group" "$dir"; chmod 2751 "$dir"; did=changed
done
echo "${did:-}"
"""

# $1 copied file, $2 its place as a verified image, $3 sha256. A call that was killed, or another host, may do it, too.
VERIFY = """set -eu
found=$(sha256sum "$1") || { [ -e "$2" ] || exit 1; exit 0; }
found=${found%% *}
[ "$found" = "$3" ] || { rm -f "$1"; echo "$found"; exit 65; }
[ ! -e "$2" ] || { rm -f "$1"; exit 0; }  # what is there was verified, and volumes may be linked to it
mv "$1" "$2" || [ -e "$2" ]
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

# $1 folder, $2 file, $3 format, $4 size in MiB, $5 image or "", $6 its format, $7 bytes that have to be free. Says
# "there" if it was. Synced before it gets its name: after a power loss a volume is whole or not there.
VOLUME = """set -eu; umask 007
[ ! -e "$2" ] || { echo there; exit 0; }
free=$(df --block-size=1 --output=avail "${1%/*}" | tail -n 1)
[ "$free" -ge "$7" ] || { echo "$free"; exit 67; }
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

# $1 folder of an instance, $2 name of a disk. The link to the image goes last: it counts a user.
DELETE_VOLUME = """set -eu
cd "$1" 2>/dev/null || exit 0
for file in "$2.qcow2" "$2.raw" "$2.qcow2.before" "$2.raw.before" "$2.qcow2.part" "$2.raw.part" \\
    ".$2.qcow2".* ".$2.raw".* ".$2.restore" "$2.qcow2.base"; do
  [ -e "$file" ] || continue
  rm -rf --one-file-system "$file"; did=changed
done
echo "${did:-}"
"""

# $1 folder of an instance
DELETE_VOLUMES = """set -eu
[ -e "$1" ] || exit 0
rm -rf --one-file-system "$1"
echo changed
"""

# $1 folder of an instance. QEMU (group kvm, which the folder above hands down) may write there.
SCRATCH = """set -eu; umask 007
mkdir -p -m 2771 "$1"; mkdir -p -m 2770 "$1/scratch"
"""

# $1 folder of an instance
DELETE_SCRATCH = """set -eu
[ ! -e "$1/scratch" ] || { rm -rf --one-file-system "$1/scratch"; did=changed; }
rmdir "$1" 2>/dev/null || :
echo "${did:-}"
"""

# $1 folder, $2 name, $3 sha256, $4 size in bytes, $5 image or "". Is that file there already? What others left of it
# goes. .NAME.taken: the checksum that a file came with, and what file that was. Who brought it may have been killed
# before its name was on the disk.
LOOK = """set -eu
same() { sync . ..; echo same; exit 0; }
if cd "$1" 2>/dev/null; then
  rm -f ".$2".*.part
  if [ -e "$2" ]; then
    [ "$(cat ".$2.taken" 2>/dev/null)" != "$3 $(stat -c '%i %s %y' "$2")" ] || same
    if [ "$(stat -c %s "$2")" -eq "$4" ]; then
      found=$(sha256sum "$2")
      [ "${found%% *}" != "$3" ] || same
    fi
  fi
fi
[ -z "$5" ] || [ -e "$5" ] || exit 66
"""

# As LOOK, and $6 the image's format, $7 mark of the part; stdin: the content. Says how it went: what sh is told by its
# exit code alone could also be sudo's or timeout's. All is on the disk before it says "taken": the source may go then.
TAKE = """set -eu; umask 007
mkdir -p -m 2771 "${1%/.*}" "$1"; cd "$1"
part=".$2.$7.part"
""" + PART_GOES + """
cat >"$part"
[ -e "$part" ] || { echo gone; exit 0; }
found=$(sha256sum "$part"); found=${found%% *}
[ "$found" = "$3" ] || { echo "wrong $found"; exit 0; }
if [ -n "$5" ]; then
  ln -f "$5" "$2.base" || { [ ! -e "$5" ] || exit 1; echo no-image; exit 0; }
  qemu-img info -f qcow2 --output=json "$part" | grep -Fq "\\"backing-filename\\": \\"$5\\"" ||
    qemu-img rebase -q -u -f qcow2 -b "$5" -F "$6" "$part"
fi
sync "$part"; mv -f "$part" "$2"
echo "$3 $(stat -c '%i %s %y' "$2")" >".$2.taken"
[ -n "$5" ] || rm -f "$2.base"
sync . ..
echo taken
"""

# $1 folder, $2 file, $3 mark of the copies. Is it what was made of them?
RESTORED = """set -eu
cd "$1" 2>/dev/null && [ -e "$2" ] || exit 0
[ "$(cat ".$2.restored" 2>/dev/null)" != "$3 $(stat -c '%i %s %y' "$2")" ] || echo same
"""

# $1 folder, $2 file, $3 what was made, $4 mark of the copies, $5 folder of the copies. What is kept already stays: a
# call that was killed may have come as far as the new disk.
SWAP = """set -eu
cd "$1"; sync "$3"
[ ! -e "$2" ] || [ -e "$2.before" ] || ln "$2" "$2.before"
sync .; mv -f "$3" "$2"
echo "$4 $(stat -c '%i %s %y' "$2")" >".$2.restored"
sync .; rm -rf --one-file-system "$5"
"""

# $1 folder, $2 name of a disk
PUT_BACK = """set -eu
cd "$1" 2>/dev/null || exit 0
for file in "$2.qcow2" "$2.raw"; do
  [ -e "$file.before" ] || continue
  rm -f ".$file.restored"; mv -f "$file.before" "$file"; sync .; did=changed
done
rm -rf --one-file-system ".$2.restore"
echo "${did:-}"
"""

# $1 folder, $2 name of a disk. The link to the image goes when what is left lies on nothing.
DROP_BEFORE = """set -eu
cd "$1" 2>/dev/null || exit 0
for file in "$2.qcow2" "$2.raw"; do
  [ ! -e "$file.before" ] || { rm -f "$file.before"; did=changed; }
done
if [ -e "$2.qcow2" ] && [ -e "$2.qcow2.base" ]; then
  found=$(qemu-img info -U -f qcow2 --output=json "$2.qcow2")
  case $found in *'"backing-filename"'*) ;; *) rm -f "$2.qcow2.base" ;; esac
fi
rm -rf --one-file-system ".$2.restore"
echo "${did:-}"
"""

# $1 file of saved memory
DELETE_STATE = """set -eu
[ -e "$1" ] || exit 0
rm -f "$1"; sync "$(dirname "$1")"
echo changed
"""
