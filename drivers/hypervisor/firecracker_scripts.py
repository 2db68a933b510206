"""What the Firecracker driver runs on a host: fixed scripts, whose arguments are passed and never pasted in.

    STATE/NAME/definition.json        what is defined; the VM is ours if it holds our id
    STATE/NAME/{console.log,log,metrics}
    RUN/NAME/running.json             what it was started with; RUN is gone after a boot, as its VMs are
    RUN/NAME/pid                      "SUPERVISOR BEGUN VMM BEGUN": pids, and when each began (/proc/PID/stat, 22)
    RUN/NAME/{api.sock,console.in,taps,config.json,metadata.json}
    RUN/NAME/held                     it may be paused: the VMM is asked
    RUN/NAME/cut                      its power was cut by us;   RUN/NAME/ended: the VMM's exit code

A supervisor of a few lines outlives the SSH connection in a session of its own. It waits for the VMM, then takes the
taps away and writes down how it ended. No agent, no systemd: what is found again is files and pids.
"""

from __future__ import annotations

ABSENT, FOREIGN, RUNS, FAILED, LATE, NO_KERNEL = 66, 67, 68, 70, 71, 72  # exit codes
CHANGED = "changed"

# $run: the VM's folder. Changes of one VM follow each other, also those of callers that are gone.
_COMMON = """set -eu; umask 007
alone() {
  dir=${run%/*}
  if [ ! -d "$dir" ]; then  # gone after a boot
    (umask 022; mkdir -p "$dir"); ! getent group kvm >/dev/null || chgrp kvm "$dir"; chmod 2750 "$dir"
  fi
  exec 9>"$run.lock"; flock -w 60 9
}
same() { # PID BEGUN: is that process still the one?
  [ -n "${2:-}" ] && stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  begun=$2; set -- ${stat##*) }
  [ "$1" != Z ] && [ "${20}" = "$begun" ]
}
pids() { s_pid= s_begun= v_pid= v_begun=; [ ! -e "$run/pid" ] || read -r s_pid s_begun v_pid v_begun <"$run/pid" || :; }
alive() { pids; same "$v_pid" "$v_begun" || same "$s_pid" "$s_begun"; }
clear() { # what the supervisor takes away, where it was killed itself
  [ ! -e "$run/taps" ] || while read -r tap; do ip link del "$tap" 2>/dev/null || :; done <"$run/taps"
  [ ! -e "$run/mounts" ] || while read -r file; do umount -l "$file" 2>/dev/null || :; done <"$run/mounts"
  rm -f "$run/taps" "$run/mounts"
}
"""

# $1 STATE, $2 RUN, $3 kernels. Group kvm may reach the sockets: users other than root come as that.
PREPARE = """set -eu
group=root; ! getent group kvm >/dev/null || group=kvm
for dir in "$1" "$2"; do
  [ "$(stat -c '%G %a' "$dir" 2>/dev/null)" = "$group 2750" ] && continue
  mkdir -p "$dir"; chgrp "$group" "$dir"; chmod 2750 "$dir"; echo "folder $dir"
done
[ -d "$3" ] || { mkdir -p "$3"; echo "folder $3 (put kernels there)"; }
"""

# $1 the VMM, $2 kernels
ABOUT = """
"$1" --version 2>&1 | head -n 1
uname -m
[ -e /dev/net/tun ] && command -v ip setsid flock >/dev/null && echo ready || echo incomplete
for dir in "$2"/*; do
  [ ! -e "$dir/vmlinux" ] || { [ -e "$dir/initrd" ] && echo "${dir##*/} initrd" || echo "${dir##*/}"; }
done
"""

CAPACITY = "nproc; grep -E '^(MemTotal|MemAvailable):' /proc/meminfo"

# $1 STATE, $2 RUN, $3 a name or *. Processes before the files that say how they ended: a supervisor that is gone has
# written that down.
LOOK = """
show() { cd "$1" 2>/dev/null && tail -v -n +1 -- ./$2/"$3" 2>/dev/null; echo; }
pids=$(show "$2" "$3" pid); echo "$pids"; echo
echo '==> processes <=='
files=$(echo "$pids" | while read -r s b v _; do case $s in [0-9]*) echo /proc/$s/stat /proc/$v/stat ;; esac; done)
cat $files /dev/null 2>/dev/null
echo '==> units <=='; getconf CLK_TCK; getconf PAGESIZE
show "$1" "$3" definition.json
for file in running.json ended cut held; do show "$2" "$3" $file; done
"""

# $1 STATE/NAME, $2 RUN/NAME, $3 what a definition of ours holds, $4 folder of its kernel; stdin: the definition.
DEFINE = f"""{_COMMON}
run=$2; alone
[ -e "$4/vmlinux" ] || exit {NO_KERNEL}
if [ -e "$1/definition.json" ]; then grep -Fq -- "$3" "$1/definition.json" || exit {FOREIGN}; fi
mkdir -p "$1"; cat >"$1/.part"; sync "$1/.part"
! cmp -s "$1/.part" "$1/definition.json" || {{ rm "$1/.part"; exit 0; }}
mv "$1/.part" "$1/definition.json"; echo {CHANGED}
"""

# $1 STATE/NAME, $2 RUN/NAME, then the command line of the VMM. Its logs are cut to their ends when they have grown:
# what a guest prints must not fill the host. Blocks are counted, not bytes: one that does not append leaves a hole.
SUPERVISE = """umask 007; trap '' HUP; def=$1 run=$2; shift 2
cut_logs() {
  trap 'kill $!; exit' TERM
  while kill -0 $vmm 2>/dev/null; do  # it ends by itself where its supervisor was killed
    sleep 60 & wait $!
    for file in "$def/console.log" "$def/log" "$def/metrics"; do
      [ "$(stat -c %b "$file")" -gt 16384 ] || continue  # 8 MiB
      tail -c 1048576 "$file" >"$def/.end"; cat "$def/.end" >"$file"; rm "$def/.end"
    done
  done
}
begun() { stat=$(cat "/proc/$1/stat"); set -- ${stat##*) }; echo "${20}"; }
"$@" <>"$run/console.in" >>"$def/console.log" 2>&1 &
vmm=$!
cut_logs </dev/null >/dev/null 2>&1 &
keeper=$!
echo "$$ $(begun $$) $vmm $(begun $vmm)" >"$run/.pid"; mv "$run/.pid" "$run/pid"
wait $vmm; code=$?
kill $keeper
while read -r tap; do ip link del "$tap"; done <"$run/taps"
while read -r file; do umount -l "$file"; done <"$run/mounts"
rm -f "$run/taps" "$run/mounts"
echo $code >"$run/ended"
"""

# $1 STATE/NAME, $2 RUN/NAME, $3 socket, $4 folder of a jail or "", $5 its user, $6 SUPERVISE, then for each NIC
# "tap TAP MAC BRIDGE", for each file that the jail is to see "file HOW OUTSIDE INSIDE" (HOW: rw gives it to the user),
# "--", the command line of the VMM. stdin: definition, configuration, metadata, a line each.
START = f"""{_COMMON}
def=$1 run=$2 socket=$3 jail=$4 user=$5 supervise=$6; shift 6
user=${{user%:*}}; alone
[ -e "$def/definition.json" ] || exit {ABSENT}
! alive || {{ echo there; exit 0; }}
clear; rm -rf --one-file-system "$run"; mkdir "$run"
trap '[ "$?" = 0 ] || clear' EXIT
[ -z "$jail" ] || {{ rm -rf --one-file-system "$jail"; mkdir -p "$jail"; }}
at=${{jail:-$run}}; cat >"$run/input"
sed -n 1p "$run/input" >"$run/running.json"
sed -n 2p "$run/input" >"$at/config.json"; sed -n 3p "$run/input" >"$at/metadata.json"; rm "$run/input"
: >"$run/taps"; : >"$run/mounts"; mkfifo "$run/console.in"
[ ! -e "$def/console.log" ] || mv -f "$def/console.log" "$def/console.log.0"
: >"$def/console.log"; : >"$def/log"; : >"$def/metrics"
while [ "$1" != -- ]; do
  case $1 in
    tap)
      ip link del "$2" 2>/dev/null || :
      ip tuntap add dev "$2" mode tap ${{user:+user "$user"}}
      echo "$2" >>"$run/taps"
      ip link set dev "$2" address "$3"; ip link set dev "$2" master "$4" up ;;
    file)
      [ -e "$3" ] || {{ echo "there is no $3" >&2; exit {FAILED}; }}
      mkdir -p "$jail${{4%/*}}"; : >"$jail$4"; mount --bind "$3" "$jail$4"; echo "$jail$4" >>"$run/mounts"
      [ "$2" != rw ] || chown "$user" "$3" ;;
  esac
  shift 4
done; shift
[ -z "$jail" ] || chown "$user" "$at/config.json" "$at/metadata.json"
setsid sh -c "$supervise" rackflow-microvm "$def" "$run" "$@" </dev/null >/dev/null 2>&1 9>&- &
n=0
until [ -S "$socket" ] || [ -e "$run/ended" ]; do
  n=$((n + 1)); [ $n -lt 300 ] || exit {LATE}
  sleep 0.05
done
[ ! -e "$run/ended" ] || {{ cat "$def/log" "$def/console.log" | tail -n 20 >&2; rm -rf "$run"; exit {FAILED}; }}
echo {CHANGED}
"""

# $1 STATE/NAME, $2 RUN/NAME: what one said that has ended instead of starting; it is just off afterwards.
WHY = f"""{_COMMON}
run=$2; alone; n=0
while alive && [ $n -lt 50 ]; do n=$((n + 1)); sleep 0.1; done  # its supervisor is not through yet
cat "$1/log" "$1/console.log" 2>/dev/null | tail -n 20 >&2
alive || {{ clear; rm -rf --one-file-system "$run"; }}
exit {FAILED}
"""

# $1 RUN/NAME, $2 tenths of a second: wait until it has ended.
ENDED = f"""{_COMMON}
run=$1; n=0
while alive; do
  [ $n -lt "$2" ] || {{ echo runs; exit 0; }}
  n=$((n + 1)); sleep 0.1
done
echo ended
"""

# $1 RUN/NAME
CUT = f"""{_COMMON}
run=$1; alone
alive || {{ clear; exit 0; }}
: >"$run/cut"
! same "$v_pid" "$v_begun" || kill -KILL "$v_pid"
n=0
while alive; do
  n=$((n + 1)); [ $n -lt 200 ] || exit {LATE}
  sleep 0.05
done
clear; echo {CHANGED}
"""

# $1 STATE/NAME, $2 RUN/NAME, $3 what a definition of ours holds, $4 folder of a jail or "", $5 folder of its snapshots
UNDEFINE = f"""{_COMMON}
run=$2; alone
! alive || exit {RUNS}
clear; rm -rf --one-file-system "$run"
if [ -e "$1/definition.json" ]; then grep -Fq -- "$3" "$1/definition.json" || exit {FOREIGN}; did={CHANGED}; fi
[ -z "$4" ] || rm -rf --one-file-system "${{4%/root}}"
[ -z "$5" ] || rm -rf --one-file-system "$5"
rm -rf --one-file-system "$1"; rm -f "$run.lock"
echo "${{did:-}}"
"""

# $1 file, $2 "" or what to write; "" takes it away
MARK = """set -eu; if [ -n "$2" ]; then echo "$2" >"$1"; else rm -f "$1"; fi"""

# $1 folder of the snapshots, $2 name, $3 definition, $4, $5 files of state and memory or "", then disks: copied into a
# folder that gets its name when all is on the disk.
SNAPSHOT = f"""set -eu; umask 007
part="$1/.$2.part"; rm -rf --one-file-system "$part"; mkdir -p "$part"
cat >"$part/definition.json"
[ -z "$3" ] || {{ mv "$3" "$part/state"; mv "$4" "$part/memory"; }}
name=$2 folder=$1; shift 4
for disk; do cp --reflink=auto --sparse=always "$disk" "$part/${{disk##*/}}"; done
sync "$part"/*; mv "$part" "$folder/$name"; sync "$folder"
echo {CHANGED}
"""

# $1 folder of the snapshots: name, seconds, "memory" of each whole one, oldest first
SNAPSHOTS = """cd "$1" 2>/dev/null || exit 0
for dir in *; do
  [ -e "$dir/definition.json" ] || continue
  echo "$(stat -c %Y "$dir/definition.json") $dir $([ ! -e "$dir/state" ] || echo memory)"
done | sort -n
"""

# $1 folder of one snapshot, then disks
REVERT = """set -eu; umask 007
folder=$1; shift
for disk; do
  cp --reflink=auto --sparse=always "$folder/${disk##*/}" "$disk.reverted"
  chown --reference="$disk" "$disk.reverted"; chmod --reference="$disk" "$disk.reverted"
done
for disk; do sync "$disk.reverted"; mv -f "$disk.reverted" "$disk"; done
"""

# $1 folder of the snapshots, $2 name
DROP = f"""set -eu
rm -rf --one-file-system "$1/.$2.part"
[ -e "$1/$2" ] || exit 0
mv "$1/$2" "$1/.$2.part"; rm -rf --one-file-system "$1/.$2.part"; echo {CHANGED}
"""

# $1 metrics file: the last line that was flushed
METRICS = "tail -n 1 -- \"$1\" | tr -d '\\000'"

# $1 console.in, $2 console.log, $3 lock. Two readers would type into one line, so one at a time. What comes is what is
# logged from now on. It ends when stdin ends (the caller is gone), and with the VM: $4 is its pid.
CONSOLE = """exec 8>"$3"
flock -n 8 || { echo taken; exit 75; }
[ -p "$1" ] || exit 66
exec 3<&0
tail -c 0 -f --pid="$4" "$2" & reader=$!
trap 'kill "$reader" 2>/dev/null' EXIT
trap 'exit 143' TERM HUP INT
echo ready
{ cat <&3 >"$1"; kill "$reader"; } 2>/dev/null &
wait "$reader"
"""


def argv(script: str, *arguments: str) -> list[str]:
    """Return the command line of a script."""
    return ["sh", "-c", script, "rackflow", *arguments]
