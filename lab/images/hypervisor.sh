#!/bin/bash
# hypervisor.sh OUT: make OUT/hypervisor.raw.zst, the disk of a server: Debian 12 with sshd, LXD, libvirt and QEMU.
#
# For a machine that is installed from the network: all packages of both roles are inside, since there is no way out from
# where it lives. BIOS boot by extlinux, root found by its label on whatever disk it was written to. It has no host key,
# no user's key and no address: who writes it to a disk puts them there. Takes some minutes and is made on first use only.
set -euo pipefail
HERE=$(dirname "$(readlink -f "$0")")
OUT=$(realpath "${1:?folder}")
WORK=$(mktemp -d -p "$OUT")
. "$HERE/common.sh"
TREE=$OUT/hypervisor-tree # kept until the image is made: a second try goes on from it
. "$HERE/debian/tree.sh"
trap clean_up EXIT
SPARE_MIB=384 # until the root file system is made as large as its disk
BASE=systemd,systemd-sysv,dbus,udev,iproute2,netbase,iputils-ping,sudo
SERVER=(openssh-server cloud-init linux-image-cloud-amd64 initramfs-tools zstd cloud-guest-utils fdisk pciutils
  lxd lxd-client lxcfs btrfs-progs nftables dnsmasq-base
  libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils)

configure() {
  echo server > "$TREE/etc/hostname"
  : > "$TREE/etc/machine-id"
  : > "$TREE/etc/resolv.conf"
  printf 'LABEL=rackflow / ext4 rw,noatime,discard 0 1\n' > "$TREE/etc/fstab"
  printf '127.0.0.1 localhost\n::1 localhost\n' > "$TREE/etc/hosts"
  # Asleep unless a drive tells what to do: the ramdisk puts the same onto the disk itself. Two sources, for of one
  # alone it takes for granted that it is there.
  cat > "$TREE/etc/cloud/cloud.cfg.d/90_rackflow.cfg" << CONFIG
datasource_list: [NoCloud, ConfigDrive]
locale: false
system_info: {network: {renderers: [networkd]}}
CONFIG
  slim_tree
  chroot "$TREE" systemctl enable serial-getty@ttyS0 ssh systemd-networkd || true
  # Which of the two a machine runs is decided when it is configured for its role.
  chroot "$TREE" systemctl disable lxd.service lxd.socket lxd-containers lxcfs libvirtd libvirtd.socket libvirt-guests || true
  chroot "$TREE" systemctl mask systemd-networkd-wait-online || true
  mask_timers
}

make_tree() {
  if [ -f "$TREE/.complete" ]; then return; fi
  debootstrap_tree "$BASE"
  install_in_tree "${SERVER[@]}"
  configure
  touch "$TREE/.complete"
}

make_tree
MIB=$(($(du -sm "$TREE" | cut -f1) + SPARE_MIB))
make_debian_disk "$WORK/disk.raw" "$MIB" rackflow \
  'root=LABEL=rackflow rw quiet mitigations=off net.ifnames=0 no_timer_check tsc=reliable'
zstd -q -T0 -6 "$WORK/disk.raw" -o "$WORK/hypervisor.raw.zst"
publish "$WORK/hypervisor.raw.zst" hypervisor.raw.zst
rm -rf --one-file-system "$TREE"
