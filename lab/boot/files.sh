# Files of a lab host: an overlay of this machine's root with the host's own disk above it. Whatever is installed here
# is there in the host; what the host writes stays its own and survives a power loss. Sourced by boot.sh.

mount_disk() { # the upper layer of an overlay must lie on another file system than the lower: hence a disk image
  mount -o loop "$HOST_DIR/disk.img" "$DISK"
  [ -e "$DISK/booted" ] || FIRST_BOOT=yes
}

overlay_of() { # FOLDER of this machine
  local layer=$DISK/overlay$1
  layer=${layer%/}
  mkdir -p "$layer.upper" "$layer.work"
  mount -t overlay overlay -o "lowerdir=$1,upperdir=$layer.upper,workdir=$layer.work" "$ROOT${1%/}"
}

mount_root() { # an overlay does not see mounts below its lower folder: a separate /usr or /var gets one of its own
  local folder
  overlay_of /
  for folder in /usr /var; do
    if mountpoint -q "$folder"; then overlay_of "$folder"; fi
  done
  mount -t proc proc "$ROOT/proc"
  mount -t sysfs sys "$ROOT/sys"
  mount -t tmpfs -o mode=755 run "$ROOT/run"
  mkdir -p "$ROOT"/run/{lock,sshd,libvirt}
  mount -t tmpfs -o mode=1777 tmp "$ROOT/tmp"
}

own_folder() { # FOLDER MODE: empty at first, on the host's disk; nothing of this machine's shows through
  mkdir -p "$DISK/own$1" "$ROOT$1"
  if [ -n "$FIRST_BOOT" ]; then chmod "$2" "$DISK/own$1"; fi
  mount --bind "$DISK/own$1" "$ROOT$1"
}

mount_own_folders() {
  own_folder /root 700
  own_folder /home 755
  own_folder /var/log 755
  own_folder /var/tmp 1777
  own_folder /etc/libvirt 755
  own_folder /var/lib/libvirt 755
  own_folder /var/cache/libvirt 711
  own_folder /var/lib/lxd 711
  own_folder /var/lib/lxcfs 755
  own_folder /var/lib/rackflow 755 # a rackflow of this machine keeps its own secrets there
}

hide_machine() { # folders of this machine that are no part of a plain root file system, and the lab itself
  local folder
  for folder in $LAB_HIDE /etc/rackflow "$LAB_DIR"; do
    if [ -d "$ROOT$folder" ] && ! mountpoint -q "$ROOT$folder"; then mount -t tmpfs -o ro hidden "$ROOT$folder"; fi
  done
}

mount_data_folders() { # /srv/local: the host's own disk without an overlay; /srv/shared: one folder that all hosts see
  mkdir -p "$DISK/local" "$ROOT/srv/local" "$ROOT/srv/shared"
  mount --bind "$DISK/local" "$ROOT/srv/local"
  mount --bind "$LAB_SHARED" "$ROOT/srv/shared"
}
