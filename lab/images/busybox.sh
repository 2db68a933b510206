#!/bin/bash
# busybox.sh OUT: make OUT/busybox.tar.gz, an LXD container image of 1 MB (metadata.yaml + rootfs) with DHCP on eth0.
set -euo pipefail
HERE=$(dirname "$(readlink -f "$0")")
OUT=$(realpath "${1:?folder}")
WORK=$(mktemp -d -p "$OUT")
. "$HERE/common.sh"
trap clean_up EXIT
BUSYBOX=$(static_busybox)
ROOT=$WORK/image/rootfs

mkdir -p "$ROOT"/{bin,sbin,etc,dev,proc,sys,root,run,tmp,usr/bin,var}
for applet in $("$BUSYBOX" --list); do ln -s /bin/busybox "$ROOT/bin/$applet"; done
cp --remove-destination "$BUSYBOX" "$ROOT/bin/busybox"
ln -s /bin/busybox "$ROOT/sbin/init"
install -m 644 "$HERE/busybox/inittab" "$ROOT/etc/inittab"
install -m 755 "$HERE/tiny/udhcpc.sh" "$ROOT/etc/udhcpc.sh"
echo 'root:x:0:0:root:/root:/bin/sh' > "$ROOT/etc/passwd"
echo 'root:x:0:' > "$ROOT/etc/group"
cat > "$WORK/image/metadata.yaml" << 'METADATA'
architecture: x86_64
creation_date: 1700000000
properties: {description: busybox, os: busybox}
METADATA
# The same content gives the same file, whenever it is built.
tar -C "$WORK/image" --sort=name --mtime=@1700000000 --owner=0 --group=0 --numeric-owner -cf - metadata.yaml rootfs |
  gzip -9n > "$WORK/busybox.tar.gz"
publish "$WORK/busybox.tar.gz" busybox.tar.gz
