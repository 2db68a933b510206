# network-config version 2 (YAML or JSON, in any order of keys) to one line per card: "mac cidr,cidr gateway dns,dns", "-"
# for what is not said. Brackets, commas and quotes are taken for line ends and blanks, then it is keys and values only.

function flush_card() {
  if (card == "") return
  print (mac ? mac : "-"), (cidrs ? cidrs : "-"), (gateway ? gateway : "-"), (servers ? servers : "-")
  mac = cidrs = gateway = servers = ""
}

function joined(list, item) { return list == "" ? item : list "," item }

function value(text) {
  if (text == "") return
  if (key == "macaddress") mac = tolower(text)
  else if (key == "gateway4" || key == "via") gateway = text
  else if (key == "addresses" && text ~ /^[0-9.]+\/[0-9]+$/) cidrs = joined(cidrs, text)
  else if (key == "addresses" && text ~ /^[0-9.]+$/) servers = joined(servers, text)
}

BEGIN {
  split("version network ethernets match macaddress set-name addresses gateway4 routes to via nameservers search " \
    "dhcp4 dhcp6 mtu optional renderer driver name metric on-link", words, " ")
  for (i in words) known[words[i]] = 1
}

{
  gsub(/#.*/, "")
  gsub(/["']/, "")
  count = split($0, parts, /[][{},]/)
  for (p = 1; p <= count; p++) {
    text = parts[p]
    gsub(/^[ \t-]+|[ \t\r]+$/, "", text)
    if (match(text, /^[A-Za-z0-9_.-]+:( |$)/)) { # a key; the colons of a MAC are not followed by a blank
      name = substr(text, 1, RLENGTH)
      sub(/: *$/, "", name)
      rest = substr(text, RLENGTH + 1)
      gsub(/^ +/, "", rest)
      if (name in known) key = name
      else if (rest == "") { flush_card(); card = name; key = "" }
      value(rest)
    } else value(text)
  }
}

END { flush_card() }
