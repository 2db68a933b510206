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
trap clean_up EXIT
SUITE=${SUITE:-bookworm}
TREE=$OUT/debian-tree # kept until the images are made: a second try goes on from it
BASE=systemd,systemd-sysv,dbus,udev,ifupdown,iproute2,isc-dhcp-client,netbase,iputils-ping,sudo,python3-minimal
GUEST=(openssh-server cloud-init cloud-guest-utils qemu-guest-agent linux-image-cloud-amd64 initramfs-tools)

mirror_of_apt() {
  apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
    awk -v suite="$SUITE" '$2 == suite {print $1; exit}'
}

mount_in_tree() { # what package scripts expect
  mount -t proc proc "$TREE/proc"
  mount -t sysfs sys "$TREE/sys"
  mount --bind /dev "$TREE/dev"
  MOUNTED+=("$TREE/dev" "$TREE/sys" "$TREE/proc")
}

unmount_tree() {
  umount "$TREE/dev" "$TREE/sys" "$TREE/proc"
  MOUNTED=()
}

install_guest_packages() { # in a second step: debootstrap cannot resolve cloud-init's virtual dependencies
  cp /etc/resolv.conf "$TREE/etc/resolv.conf"
  echo "deb $MIRROR $SUITE main" > "$TREE/etc/apt/sources.list"
  printf '#!/bin/sh\nexit 101\n' > "$TREE/usr/sbin/policy-rc.d" # no daemon starts in here
  chmod 755 "$TREE/usr/sbin/policy-rc.d"
  mount_in_tree
  chroot "$TREE" apt-get -q update
  chroot "$TREE" apt-get install -y -q --no-install-recommends "${GUEST[@]}"
  chroot "$TREE" apt-get clean
  unmount_tree
  rm "$TREE/usr/sbin/policy-rc.d"
}

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
  rm -rf "$TREE"/var/cache/apt/*.bin "$TREE"/var/lib/apt/lists/* "$TREE"/usr/share/{doc,man,locale}/*
  rm -f "$TREE"/etc/ssh/ssh_host_*
  # Some are enabled already and say so with an error.
  chroot "$TREE" systemctl enable serial-getty@ttyS0 ssh qemu-guest-agent cloud-init cloud-init-local cloud-config cloud-final || true
  chroot "$TREE" systemctl mask apt-daily.timer apt-daily-upgrade.timer man-db.timer fstrim.timer e2scrub_all.timer || true
}

make_tree() {
  if [ -f "$TREE/.complete" ]; then return; fi
  MIRROR=${MIRROR:-$(mirror_of_apt)}
  [ -n "$MIRROR" ] || fail "apt's configuration names no mirror for $SUITE: set MIRROR"
  rm -rf --one-file-system "$TREE"
  debootstrap --variant=minbase --include="$BASE" "$SUITE" "$TREE" "$MIRROR"
  install_guest_packages
  configure
  touch "$TREE/.complete"
}

make_vm_image() {
  local kernel
  kernel=$(ls "$TREE/boot" | sed -n 's/^vmlinuz-//p' | tail -n 1)
  make_boot_disk "$WORK/disk.raw" 2048 cloudimg "$TREE"
  mount_partition "$WORK/disk.raw" "$WORK/mnt"
  copy_without_holes "$WORK/mnt/boot/vmlinuz-$kernel" "$WORK/mnt/boot/vmlinuz-$kernel"
  copy_without_holes "$WORK/mnt/boot/initrd.img-$kernel" "$WORK/mnt/boot/initrd.img-$kernel"
  write_boot_loader "$WORK/disk.raw" "$WORK/mnt" "vmlinuz-$kernel" "initrd.img-$kernel" \
    'rw quiet mitigations=off net.ifnames=0 no_timer_check tsc=reliable'
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
