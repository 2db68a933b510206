#!/bin/bash
# debian.sh OUT: make OUT/debian.qcow2 (a VM, about 410 MB) and OUT/debian.tar.zst (the same as an LXD container, 72 MB).
#
# Debian 12 with systemd, cloud-init (NoCloud, ConfigDrive), qemu-guest-agent, sshd and the cloud kernel; BIOS boot, serial
# console. Takes some minutes and is made on first use only: where real cloud-init or systemd matters. SUITE and MIRROR
# (by default the first one that this machine's apt uses) may be set.
set -euo pipefail
HERE=$(dirname "$(readlink -f "$0")")
OUT=$(realpath "${1:?folder}")
WORK=$(mktemp -d -p "$OUT")
. "$HERE/common.sh"
. "$HERE/debian/tree.sh"
trap clean_up EXIT
TREE=$OUT/debian-tree # kept until the images are made: a second try goes on from it
BASE=systemd,systemd-sysv,dbus,udev,ifupdown,iproute2,isc-dhcp-client,netbase,iputils-ping,sudo,python3-minimal
GUEST=(openssh-server cloud-init cloud-guest-utils qemu-guest-agent linux-image-cloud-amd64 initramfs-tools)

configure() {
  # Without the package locales, cloud-init's locale module fails and "cloud-init status" says error: off.
  # The guest's own name goes into /etc/hosts: sudo looks it up.
  printf 'datasource_list: [NoCloud, ConfigDrive, None]\nlocale: false\nmanage_etc_hosts: true\n' > "$TREE/etc/cloud/cloud.cfg.d/90_rackflow.cfg"
  echo debian > "$TREE/etc/hostname"
  : > "$TREE/etc/machine-id"
  : > "$TREE/etc/resolv.conf"
  printf '/dev/vda1 / ext4 rw,noatime,discard 0 1\n' > "$TREE/etc/fstab"
  if ! grep -qs interfaces.d "$TREE/etc/network/interfaces"; then
    echo 'source /etc/network/interfaces.d/*' > "$TREE/etc/network/interfaces"
  fi
  slim_tree
  # Some are enabled already and say so with an error.
  chroot "$TREE" systemctl enable serial-getty@ttyS0 ssh qemu-guest-agent cloud-init cloud-init-local cloud-config cloud-final || true
  mask_timers
}

make_tree() {
  if [ -f "$TREE/.complete" ]; then return; fi
  debootstrap_tree "$BASE"
  install_in_tree "${GUEST[@]}" # in a second step: debootstrap cannot resolve cloud-init's virtual dependencies
  configure
  touch "$TREE/.complete"
}

make_vm_image() {
  make_debian_disk "$WORK/disk.raw" 2048 cloudimg 'rw quiet mitigations=off net.ifnames=0 no_timer_check tsc=reliable'
  qemu-img convert -O qcow2 "$WORK/disk.raw" "$WORK/debian.qcow2"
  publish "$WORK/debian.qcow2" debian.qcow2
}

make_container_image() { # no /etc/hostname: all containers would have that name
  cat > "$WORK/metadata.yaml" << METADATA
architecture: x86_64
creation_date: 1700000000
properties: {description: Debian, os: debian, release: $SUITE}
METADATA
  tar -cf - -C "$WORK" metadata.yaml -C "$TREE" --numeric-owner \
    --exclude=./etc/hostname --exclude=./boot --exclude=./lib/modules --exclude=./usr/lib/modules --exclude=./.complete \
    --transform 'flags=rh;s,^\./,rootfs/,;s,^\.$,rootfs,' . | zstd -q -f -o "$WORK/debian.tar.zst"
  publish "$WORK/debian.tar.zst" debian.tar.zst
}

make_tree
make_vm_image
make_container_image
rm -rf --one-file-system "$TREE"
