#!/bin/bash
# Process 1 of a lab host: starts its daemons, starts again what dies (as systemd would), and reaps. Argument: kvm or lxd.

keep() { # LOG COMMAND...: run it in the foreground of a shell of its own, for ever
  local log=$1
  shift
  while :; do
    "$@" >> "$log" 2>&1 < /dev/null
    echo "$(date -Is) $1 ended ($?)" >> "$log"
    sleep 1
  done
}

start_sshd() {
  keep /var/log/sshd.log /usr/sbin/sshd -D -e -f /etc/ssh/lab/sshd_config &
}

start_kvm() {
  keep /var/log/libvirt/virtlogd.out virtlogd &
  keep /var/log/libvirt/libvirtd.out libvirtd &
}

start_lxd() {
  # AppArmor's profiles belong to the kernel, which all hosts share, and would outlive the host.
  export LXD_DIR=/var/lib/lxd LXD_SECURITY_APPARMOR=false
  ulimit -n 1048576 2> /dev/null || ulimit -n "$(ulimit -Hn)"
  if command -v lxcfs > /dev/null; then keep /var/log/lxcfs.log lxcfs /var/lib/lxcfs & fi
  keep /var/log/lxd/lxd.out lxd --group lxd --logfile /var/log/lxd/lxd.log &
}

cd /
rm -f /run/*.pid /var/lib/lxd/unix.socket
start_sshd
"start_$1"
while :; do wait -n || sleep 1; done
