# Control groups as a lab host sees them: its own subtree is the root. Sourced by boot.sh.

mount_cgroups() { # FOLDER
  case $CGROUP_VERSION in
    1) mount_cgroups_v1 "$1" ;;
    2) mount_cgroups_v2 "$1" ;;
  esac
}

mount_cgroups_v1() { # a tree per controller, maybe with a version 2 tree "unified" beside them
  local tree alias
  mount -t tmpfs -o mode=755 cgroup "$1"
  for tree in $CGROUP_TREES; do
    mkdir "$1/$tree"
    case $tree in
      unified) mount -t cgroup2 cgroup2 "$1/$tree" ;;
      systemd) mount -t cgroup -o none,name=systemd cgroup "$1/$tree" ;;
      *) mount -t cgroup -o "$tree" cgroup "$1/$tree" ;;
    esac
    case $tree in # cpu,cpuacct is also known as cpu and as cpuacct
      *,*) for alias in ${tree//,/ }; do ln -s "$tree" "$1/$alias"; done ;;
    esac
  done
}

mount_cgroups_v2() { # processes may live in leaves only; init.scope is the leaf that LXC and libvirt know from systemd
  local controller
  mount -t cgroup2 cgroup2 "$1"
  mkdir -p "$1/init.scope"
  echo 0 > "$1/init.scope/cgroup.procs"
  for controller in $(cat "$1/cgroup.controllers"); do
    echo "+$controller" > "$1/cgroup.subtree_control" || true # some cannot be delegated; the host does without
  done
}
