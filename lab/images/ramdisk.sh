#!/bin/bash
# ramdisk.sh OUT: make OUT/ramdisk.vmlinuz and OUT/ramdisk.gz, what a machine boots from the network to be looked at and
# to be installed.
#
# Debian's cloud kernel, busybox, dropbear (sshd) and zstd; 4 MB. It posts its inventory as ironic-python-agent does and
# lets the front-end in by SSH, which writes the disk. Neither host key nor authorized keys are in it: they come in an
# archive of their own beside it (lab/baremetal/pxe.py). What runs inside: images/ramdisk/.
set -euo pipefail
HERE=$(dirname "$(readlink -f "$0")")
OUT=$(realpath "${1:?folder}")
WORK=$(mktemp -d -p "$OUT")
. "$HERE/common.sh"
trap clean_up EXIT
BUSYBOX=$(static_busybox)
TOOLS=(dropbear-bin libtomcrypt1 libtommath1 zstd coreutils)

unpack_packages "${TOOLS[@]}"
ROOT=$WORK/root
mkdir -p "$ROOT"/{bin,sbin,usr/sbin,etc,root/.ssh,dev,proc,sys,run,tmp,mnt,lib/modules,lib64}
cp "$BUSYBOX" "$ROOT/bin/busybox"
while read -r module; do # one that is missing is built into the kernel
  file=$WORK/kernel/lib/modules/$KERNEL/kernel/$module.ko
  [ -f "$file" ] || continue
  cp "$file" "$ROOT/lib/modules/"
  echo "${module##*/}.ko" >> "$ROOT/modules"
done < "$HERE/ramdisk/modules"
copy_with_libraries "$ROOT" usr/sbin/dropbear
copy_with_libraries "$ROOT" usr/bin/zstd
copy_with_libraries "$ROOT" bin/dd # past the page cache, which would go to the disk in pieces of 4 KiB
copy_with_libraries "$ROOT" usr/bin/dropbearconvert
mv "$ROOT/usr/sbin/"* "$ROOT/sbin/"
echo 'root:x:0:0:root:/root:/bin/sh' > "$ROOT/etc/passwd"
echo 'root:*:19000:0:99999:7:::' > "$ROOT/etc/shadow"
echo 'root:x:0:' > "$ROOT/etc/group"
echo /bin/sh > "$ROOT/etc/shells"
install -m 755 "$HERE/ramdisk/init" "$ROOT/init"
install -m 755 "$HERE/tiny/udhcpc.sh" "$ROOT/etc/udhcpc.sh"
install -m 644 "$HERE/ramdisk/inventory.sh" "$ROOT/etc/inventory.sh"
(cd "$ROOT" && find . | cpio -o -H newc --quiet | gzip -9) > "$WORK/ramdisk.gz"
cp "$WORK/kernel/boot/vmlinuz-$KERNEL" "$WORK/ramdisk.vmlinuz"
publish "$WORK/ramdisk.vmlinuz" ramdisk.vmlinuz
publish "$WORK/ramdisk.gz" ramdisk.gz
