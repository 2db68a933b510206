# Print what this machine is made of, as ironic-python-agent does (inventory, root_disk, pci_devices). $1: an error.

text() { # FILE: its content without what JSON would trip over
  cat "$1" 2> /dev/null | tr -d '"\\' | sed 's/[[:space:]]*$//'
}

quoted() { # FILE
  local value
  value=$(text "$1")
  if [ -n "$value" ]; then echo "\"$value\""; else echo null; fi
}

truth() { if [ "$1" = 1 ]; then echo true; else echo false; fi; }

cards() {
  local path card address speed comma=
  for path in /sys/class/net/*; do
    card=${path##*/}
    [ "$card" = lo ] && continue
    address=$(ip -4 -o addr show "$card" | awk '{print $4}' | cut -d/ -f1 | head -n 1)
    speed=$(cat "$path/speed" 2> /dev/null)
    case $speed in '' | -*) speed=null ;; esac
    printf '%s{"name":"%s","mac_address":"%s","ipv4_address":%s,"ipv6_address":null,"has_carrier":%s,' \
      "$comma" "$card" "$(cat "$path/address")" "$([ -n "$address" ] && echo "\"$address\"" || echo null)" \
      "$(truth "$(cat "$path/carrier" 2> /dev/null)")"
    printf '"vendor":%s,"product":%s,"client_id":null,"biosdevname":null,"lldp":[],"speed_mbps":%s}' \
      "$(quoted "$path/device/vendor")" "$(quoted "$path/device/device")" "$speed"
    comma=,
  done
}

disks() {
  local path disk size comma=
  for path in /sys/block/*; do
    disk=${path##*/}
    case $disk in loop* | ram* | sr* | fd*) continue ;; esac
    size=$(($(cat "$path/size") * 512))
    [ $size -gt 0 ] || continue
    printf '%s{"name":"/dev/%s","model":%s,"vendor":%s,"size":%s,"rotational":%s,"wwn":null,"serial":%s,' \
      "$comma" "$disk" "$(quoted "$path/device/model")" "$(quoted "$path/device/vendor")" "$size" \
      "$(truth "$(cat "$path/queue/rotational")")" "$(quoted "$path/serial")"
    printf '"wwn_vendor_extension":null,"wwn_with_extension":null,"hctl":null,"by_path":null,"logical_sectors":%s}' \
      "$(cat "$path/queue/logical_block_size")"
    comma=,
  done
}

memory_mib() { # installed, from SMBIOS type 17 (offset 12; 28 where that says "large"), else what the kernel has
  local entry size total=0
  for entry in /sys/firmware/dmi/entries/17-*; do
    [ -f "$entry/raw" ] || continue
    size=$(cat "$entry/raw" | od -An -tu2 -j12 -N2 | tr -d ' ')
    [ "$size" = 32767 ] && size=$(cat "$entry/raw" | od -An -tu4 -j28 -N4 | tr -d ' ')
    total=$((total + ${size:-0}))
  done
  if [ $total -gt 0 ]; then echo $total; else echo $(($(kernel_kib) / 1024)); fi
}

kernel_kib() { awk '/^MemTotal/ {print $2}' /proc/meminfo; }

cpu_field() { sed -n "s/^$1[^:]*: //p" /proc/cpuinfo | head -n 1; }

devices() {
  local path comma=
  for path in /sys/bus/pci/devices/*; do
    [ -f "$path/vendor" ] || continue
    printf '%s{"vendor_id":"%s","product_id":"%s","class":"%s","revision":"%s","bus":"%s"}' "$comma" \
      "$(cut -c3- "$path/vendor")" "$(cut -c3- "$path/device")" "$(cut -c3- "$path/class")" \
      "$(cut -c3- "$path/revision")" "${path##*/}"
    comma=,
  done
}

DMI=/sys/class/dmi/id
MAC=$(echo "${BOOTIF#01-}" | tr -- - :)
cat << JSON
{"inventory":{"interfaces":[$(cards)],
"cpu":{"model_name":"$(cpu_field 'model name')","frequency":"$(cpu_field 'cpu MHz')",
"count":$(grep -c ^processor /proc/cpuinfo),"architecture":"$(uname -m)",
"flags":["$(cpu_field flags | sed 's/ /","/g')"],"socket_count":1},
"disks":[$(disks)],"memory":{"total":$(($(kernel_kib) * 1024)),"physical_mb":$(memory_mib)},
"bmc_address":null,"bmc_v6address":null,"bmc_mac":null,
"system_vendor":{"product_name":$(quoted $DMI/product_name),"serial_number":$(quoted $DMI/product_serial),
"manufacturer":$(quoted $DMI/sys_vendor),"firmware":{"vendor":$(quoted $DMI/bios_vendor),
"version":$(quoted $DMI/bios_version),"build_date":$(quoted $DMI/bios_date)}},
"boot":{"current_boot_mode":"$([ -d /sys/firmware/efi ] && echo uefi || echo bios)","pxe_interface":"$MAC"},
"hostname":"","usb_devices":[]},
"root_disk":null,"boot_interface":"$BOOTIF","pci_devices":[$(devices)],
"configuration":{"collectors":["default","pci-devices"],"managers":[{"name":"rackflow_ramdisk","version":"1"}]},
"error":$([ -n "$1" ] && echo "\"$1\"" || echo null)}
JSON
