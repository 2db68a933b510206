#!/bin/bash
# Boot of a lab host: build its root file system, make it "/", start its daemons. Called by init.sh, same environment.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
DISK=$HOST_DIR/disk # where the host's own disk is mounted
ROOT=$HOST_DIR/root # what will be its "/"
FIRST_BOOT=
. "$here/files.sh"
. "$here/devices.sh"
. "$here/cgroups.sh"
. "$here/identity.sh"
. "$here/kvm.sh"
. "$here/lxd.sh"

mount_disk
mount_root
mount_own_folders
hide_machine
mount_devices
mount_cgroups "$ROOT/sys/fs/cgroup"
mount_data_folders
if [ -n "$FIRST_BOOT" ]; then
  write_identity
  write_admin_user
  write_sshd
  "prepare_$HOST_KIND"
  touch "$DISK/booted"
fi
cp "$here/daemons.sh" "$ROOT/run/daemons.sh"

# From here on the machine's files are out of sight. The old root goes lazily: this script is read from it.
cd "$ROOT"
mkdir -p run/old
pivot_root . run/old
touch "/run/old$HOST_DIR/booted"
cd /
umount -l /run/old
exec env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  bash /run/daemons.sh "$HOST_KIND" < /dev/null > /run/daemons.log 2>&1
