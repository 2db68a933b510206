#!/bin/bash
# The first process of a lab host. It has namespaces of its own already, but still this machine's files and /proc.
#
# Environment, from lab/hosts.py: LAB_DIR LAB_SHARED LAB_NET LAB_HIDE, HOST_NAME HOST_NUMBER HOST_KIND HOST_DIR,
# CGROUP_VERSION (1 or 2), CGROUP_TREES (folders below /sys/fs/cgroup, "." for version 2).
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")

note_own_pid() { # as this machine sees it ($$ is 1 in here). Read by the shell itself: in a child, "self" is the child.
  local key value
  while read -r key value; do
    if [ "$key" = Pid: ]; then echo "$value" > "$HOST_DIR/init.pid"; fi
  done < /proc/self/status
}

join_cgroups() { # writing 0 moves the writer
  local tree
  for tree in $CGROUP_TREES; do echo 0 > "/sys/fs/cgroup/$tree/rf-$HOST_NAME/cgroup.procs"; done
}

note_own_pid
hostname "$HOST_NAME"
join_cgroups
# The cgroup namespace comes after joining: its root is the group one is in at that moment.
exec unshare --cgroup bash "$here/boot.sh"
