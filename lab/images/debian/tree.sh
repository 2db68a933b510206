# What the images of a whole Debian share. Sourced after common.sh; expects TREE (the root file system) to be set.

SUITE=${SUITE:-bookworm}

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

debootstrap_tree() { # PACKAGE,...
  MIRROR=${MIRROR:-$(mirror_of_apt)}
  [ -n "$MIRROR" ] || fail "apt's configuration names no mirror for $SUITE: set MIRROR"
  rm -rf --one-file-system "$TREE"
  debootstrap --variant=minbase --include="$1" "$SUITE" "$TREE" "$MIRROR"
}

install_in_tree() { # PACKAGE...
  cp /etc/resolv.conf "$TREE/etc/resolv.conf"
  echo "deb $MIRROR $SUITE main" > "$TREE/etc/apt/sources.list"
  printf '#!/bin/sh\nexit 101\n' > "$TREE/usr/sbin/policy-rc.d" # no daemon starts in here
  chmod 755 "$TREE/usr/sbin/policy-rc.d"
  mount_in_tree
  chroot "$TREE" apt-get -q update
  chroot "$TREE" apt-get install -y -q --no-install-recommends "$@"
  chroot "$TREE" apt-get clean
  unmount_tree
  rm "$TREE/usr/sbin/policy-rc.d"
}

slim_tree() { # host keys too: each machine has its own
  rm -rf "$TREE"/var/cache/apt/*.bin "$TREE"/var/lib/apt/lists/* "$TREE"/usr/share/{doc,man,locale}/*
  rm -f "$TREE"/etc/ssh/ssh_host_*
}

mask_timers() {
  chroot "$TREE" systemctl mask apt-daily.timer apt-daily-upgrade.timer man-db.timer fstrim.timer e2scrub_all.timer || true
}

make_debian_disk() { # RAW MIB LABEL ARGUMENTS: a disk that boots the tree
  local kernel
  kernel=$(ls "$TREE/boot" | sed -n 's/^vmlinuz-//p' | tail -n 1)
  make_boot_disk "$1" "$2" "$3" "$TREE"
  mount_partition "$1" "$WORK/mnt"
  copy_without_holes "$WORK/mnt/boot/vmlinuz-$kernel" "$WORK/mnt/boot/vmlinuz-$kernel"
  copy_without_holes "$WORK/mnt/boot/initrd.img-$kernel" "$WORK/mnt/boot/initrd.img-$kernel"
  write_boot_loader "$1" "$WORK/mnt" "vmlinuz-$kernel" "initrd.img-$kernel" "$4"
}
