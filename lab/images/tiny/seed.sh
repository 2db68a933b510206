# Read a NoCloud or ConfigDrive seed; sourced by rc. Understands of cloud-config: SSH keys, runcmd, and of network-config
# (version 2) addresses, gateway4 or routes, name servers. Sets SEED_NAME; writes /run/seed/network and /run/seed/commands.
SEED=
SEED_NAME=tiny

label_of() { # DISK: the volume name of an ISO 9660 file system
  dd if="/dev/$1" bs=1 skip=32808 count=32 2> /dev/null | tr -d ' \0'
}

mount_seed() {
  local path disk
  for path in /sys/block/vd* /sys/block/sr*; do
    disk=$(basename "$path")
    [ -b "/dev/$disk" ] || continue
    case $(label_of "$disk") in
      cidata | CIDATA | config-2)
        mkdir -p /mnt/seed
        mount -t iso9660 -o ro "/dev/$disk" /mnt/seed && SEED=/mnt/seed && return 0
        ;;
    esac
  done 2> /dev/null
  return 1
}

keys_in() { # FILE...: whatever looks like a public key, however it is quoted
  grep -oEh '(ssh-[a-z0-9]+|ecdsa-[a-z0-9-]+) AAAA[A-Za-z0-9+/=]+' "$@" 2> /dev/null
}

commands_in() { # USER-DATA: scripts as they are, the plain lines under runcmd of a cloud-config; also as parts of one message
  awk '
    /^--rackflow-/ {script = list = 0; next}
    /^#!/ {script = 1}
    script {print; next}
    /^[^ #-]/ {list = 0}
    /^runcmd:/ {list = 1; next}
    list && /^ *- / {sub(/^ *- */, ""); print}
  ' "$1"
}

read_nocloud() {
  local name
  name=$(sed -n 's/.*local-hostname"\{0,1\}: *"\{0,1\}\([A-Za-z0-9.-]*\).*/\1/p' $SEED/meta-data | head -n 1)
  [ -n "$name" ] && SEED_NAME=$name
  keys_in $SEED/user-data $SEED/meta-data > /root/.ssh/authorized_keys
  [ -f $SEED/network-config ] && awk -f /etc/network.awk $SEED/network-config > /run/seed/network
  [ -f $SEED/user-data ] && commands_in $SEED/user-data > /run/seed/commands
}

read_config_drive() {
  local meta=$SEED/openstack/latest name
  name=$(sed -n 's/.*"hostname": *"\([^"]*\)".*/\1/p' $meta/meta_data.json | head -n 1)
  [ -n "$name" ] && SEED_NAME=$name
  keys_in $meta/meta_data.json $meta/user_data > /root/.ssh/authorized_keys
  local address
  address=$(sed -n 's/.*"ip_address": *"\([^"]*\)".*/\1/p' $meta/network_data.json 2> /dev/null | head -n 1)
  case $address in
    '') ;;
    */*) echo "- $address - -" > /run/seed/network ;;
    *) echo "- $address/24 - -" > /run/seed/network ;;
  esac
  [ -f $meta/user_data ] && commands_in $meta/user_data > /run/seed/commands
}

read_seed() {
  if [ -f $SEED/meta-data ]; then read_nocloud; elif [ -d $SEED/openstack ]; then read_config_drive; fi
}
