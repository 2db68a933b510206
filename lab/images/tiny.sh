#!/bin/bash
# tiny.sh OUT: make OUT/tiny.qcow2, a VM that boots in 4-5 seconds of an emulated CPU and needs 112 MiB of memory.
#
# Debian's cloud kernel, busybox, dropbear (sshd), qemu-guest-agent and a web server; reads NoCloud (label cidata) and
# ConfigDrive (config-2) seeds. BIOS boot from its own disk. The kernel has neither IDE nor AHCI: attach disk and seed as
# virtio disks. When booted it writes "GUEST-READY name uptime=seconds" to ttyS0. What runs inside: images/tiny/.
#
# Also makes OUT/tiny.vmlinux and OUT/tiny.initrd, with which a microVM boots the same disk (root=/dev/vda1).
set -euo pipefail
HERE=$(dirname "$(readlink -f "$0")")
OUT=$(realpath "${1:?folder}")
WORK=$(mktemp -d -p "$OUT")
. "$HERE/common.sh"
trap clean_up EXIT
BUSYBOX=$(static_busybox)
TOOLS=(qemu-guest-agent dropbear-bin libtomcrypt1 libtommath1)

modules() { # in the order they are loaded; virtio_ring comes before virtio
  cat << 'LIST'
drivers/virtio/virtio_ring
drivers/virtio/virtio
drivers/virtio/virtio_pci_modern_dev
drivers/virtio/virtio_pci_legacy_dev
drivers/virtio/virtio_pci
drivers/virtio/virtio_mmio
drivers/block/virtio_blk
net/core/failover
drivers/net/net_failover
drivers/net/virtio_net
drivers/char/virtio_console
drivers/virtio/virtio_balloon
drivers/char/hw_random/rng-core
drivers/char/hw_random/virtio-rng
drivers/cdrom/cdrom
fs/isofs/isofs
drivers/scsi/scsi_common
drivers/scsi/scsi_mod
drivers/scsi/virtio_scsi
drivers/scsi/sd_mod
drivers/scsi/sr_mod
lib/crc16
fs/mbcache
fs/jbd2/jbd2
crypto/crc32c_generic
lib/libcrc32c
fs/ext4/ext4
net/packet/af_packet
drivers/input/evdev
drivers/acpi/button
LIST
}

make_initrd() {
  local folder=$WORK/initrd module file
  mkdir -p "$folder"/{bin,dev,proc,sys,mnt,lib/modules}
  cp "$BUSYBOX" "$folder/bin/busybox"
  while read -r module; do # one that is missing is built into the kernel
    file=$WORK/kernel/lib/modules/$KERNEL/kernel/$module.ko
    [ -f "$file" ] || continue
    cp "$file" "$folder/lib/modules/"
    echo "${module##*/}.ko" >> "$folder/modules"
  done < <(modules)
  install -m 755 "$HERE/tiny/initrd-init" "$folder/init"
  (cd "$folder" && find . | cpio -o -H newc --quiet | gzip -9) > "$WORK/initrd.gz"
}

make_root() {
  local root=$WORK/root applet program
  mkdir -p "$root"/{bin,sbin,etc/dropbear,etc/acpi/PWRF,root/.ssh,dev,proc,sys,tmp,run,var/log,var/run,mnt,boot,usr/sbin,lib64,lib}
  chmod 700 "$root/root" "$root/root/.ssh"
  for applet in $("$BUSYBOX" --list); do ln -s busybox "$root/bin/$applet"; done
  cp --remove-destination "$BUSYBOX" "$root/bin/busybox"
  for applet in init reboot poweroff halt ip ifconfig; do ln -s ../bin/busybox "$root/sbin/$applet"; done
  for program in usr/sbin/qemu-ga usr/sbin/dropbear usr/bin/dropbearkey; do copy_with_libraries "$root" "$program"; done
  echo 'root:x:0:0:root:/root:/bin/sh' > "$root/etc/passwd"
  echo 'root:*:19000:0:99999:7:::' > "$root/etc/shadow"
  echo 'root:x:0:' > "$root/etc/group"
  echo /bin/sh > "$root/etc/shells"
  install -m 644 "$HERE/tiny/inittab" "$HERE/tiny/network.awk" "$root/etc/"
  install -m 755 "$HERE/tiny/rc" "$HERE/tiny/seed.sh" "$HERE/tiny/udhcpc.sh" "$root/etc/"
  install -m 755 "$HERE/tiny/shutdown" "$root/sbin/shutdown"
  install -m 755 "$HERE/tiny/power-button" "$root/etc/acpi/PWRF/00000080" # as busybox's acpid names that event
}

make_image() {
  make_boot_disk "$WORK/disk.raw" 64 rootfs "$WORK/root"
  mount_partition "$WORK/disk.raw" "$WORK/mnt"
  copy_without_holes "$WORK/kernel/boot/vmlinuz-$KERNEL" "$WORK/mnt/boot/vmlinuz"
  copy_without_holes "$WORK/initrd.gz" "$WORK/mnt/boot/initrd.gz"
  write_boot_loader "$WORK/disk.raw" "$WORK/mnt" vmlinuz initrd.gz \
    'quiet panic=-1 tsc=reliable no_timer_check mitigations=off'
  qemu-img convert -O qcow2 "$WORK/disk.raw" "$WORK/tiny.qcow2"
  publish "$WORK/tiny.qcow2" tiny.qcow2
}

number_at() { # FILE OFFSET BYTES
  od -A n -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '
}

publish_kernel() { # for microVMs, which take an ELF file: it is the payload of the bzImage, Documentation/x86/boot.rst
  local image=$WORK/kernel/boot/vmlinuz-$KERNEL begin length
  begin=$((($(number_at "$image" $((0x1f1)) 1) + 1) * 512 + $(number_at "$image" $((0x248)) 4)))
  length=$(($(number_at "$image" $((0x24c)) 4) - 4)) # the last four bytes are its size once it is unpacked
  dd if="$image" of="$WORK/payload" bs=1M iflag=skip_bytes,count_bytes skip="$begin" count="$length" status=none
  lz4 -dcq "$WORK/payload" > "$WORK/vmlinux" || fail "the kernel is not packed by lz4, as Debian's was"
  publish "$WORK/vmlinux" tiny.vmlinux
  publish "$WORK/initrd.gz" tiny.initrd
}

unpack_packages "${TOOLS[@]}"
make_initrd
make_root
make_image
publish_kernel
