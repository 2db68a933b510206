# /dev of a lab host: its own, with what libvirt and LXD need. Sourced by boot.sh.

device_nodes() { # mode name type major minor
  cat << 'TABLE'
666 null c 1 3
666 zero c 1 5
666 full c 1 7
666 random c 1 8
666 urandom c 1 9
600 kmsg c 1 11
666 tty c 5 0
600 console c 5 1
666 net/tun c 10 200
666 fuse c 10 229
666 userfaultfd c 10 126
600 btrfs-control c 10 234
600 loop-control c 10 237
TABLE
  local i
  for i in $(seq 0 63); do echo "660 loop$i b 7 $i"; done # loop devices are the machine's: all hosts share them
  if [ -c /dev/kvm ]; then echo "666 kvm c 10 232"; fi
}

mount_devices() {
  local dev=$ROOT/dev mode node
  mount -t tmpfs -o mode=755 dev "$dev"
  mkdir "$dev"/{pts,shm,net,mqueue}
  while read -r mode node; do mknod -m "$mode" "$dev"/$node; done < <(device_nodes)
  ln -s pts/ptmx "$dev/ptmx"
  ln -s /proc/self/fd "$dev/fd"
  ln -s fd/0 "$dev/stdin"
  ln -s fd/1 "$dev/stdout"
  ln -s fd/2 "$dev/stderr"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$dev/pts"
  mount -t tmpfs -o mode=1777 shm "$dev/shm"
  mount -t mqueue mqueue "$dev/mqueue"
  if grep -q hugetlbfs /proc/filesystems; then # as systemd does it; the pages are the machine's: all hosts share them
    mkdir "$dev/hugepages"
    mount -t hugetlbfs hugetlbfs "$dev/hugepages"
  fi
}
