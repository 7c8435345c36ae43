# What scenarios use. The runner reads this before the scenario, in an empty folder of dom0, and cleans up after it: domains,
# loop devices, and files in /run/disks.
#
# A scenario passes if its last command does; `fail` and `skip` end it with a reason. Its head may say
#   # timeout: SECONDS    by the bed's clock; 120 without it
#   # variants: NAME...      it is run once for each, with the name in $variant; NAME@4.20 runs on that release only,
#                          and NAME@full on none, without --full
#   # mostly: 4.20        the release that it runs on, without --full: for what takes long and hardly depends on the release
#   # xen: 4.20           the only release that it is for
#   # skip: REASON        why it is not run at present
#
# With --full, $full is set: what takes long may take all the time that it needs.

shopt -s inherit_errexit
set -e -u -E -o pipefail

stubdom=/srv/stubdom
consoles=/var/log/xen/console
# Keeps a PVH guest from cmpxchg16b (CX16), whose flags QEMU gets wrong there; see xtask/src/machine.rs.
no_cx16=clearcpuid=141
# What Linux does at boot that no scenario is about takes an emulated guest seconds.
quick_boot="initcall_blacklist=init_encrypted,crypto_kdf108_init,jent_mod_init cryptomgr.notests"

# fail REASON...: ends the scenario as failed.
fail() {
    echo "FAIL: $*" >&2
    exit 1
}

# skip REASON...: ends the scenario as not applicable here.
skip() {
    echo "SKIP: $*" >&2
    exit 77
}

# Where a command failed, for scenarios that end by one.
trap 'echo "FAIL: line $LINENO: $BASH_COMMAND" >&2' ERR

# need image|client|driver...: skips where one of these was not built.
need() {
    local what
    for what; do
        case $what in
        # The initrd is two archives, of which cpio lists the first only.
        driver) grep -aq extra/virtio_msg_xen.ko $stubdom/guest/initrd ||
            skip "the guest's initrd is without the bus driver" ;;
        *) [ -e "$stubdom/$what" ] || skip "there is no $stubdom/$what" ;;
        esac
    done
}

# wait_until SECONDS WHAT COMMAND...: waits until the command succeeds, or fails with WHAT.
wait_until() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt "$end" ] || fail "not in time: $what"
        sleep 0.1
    done
}

# console NAME: the file with what the domain of that name has printed.
console() {
    echo "$consoles/guest-$1.log"
}

# printed NAME PATTERN: whether the domain has printed a line that matches.
printed() {
    grep -q -e "$2" "$(console "$1")"
}

# wait_printed NAME PATTERN [SECONDS]: waits for such a line; a domain that is gone without it is a failure too.
wait_printed() {
    local end=$((SECONDS + ${3:-60}))
    until printed "$1" "$2" 2>/dev/null; do
        [ $SECONDS -lt $end ] || fail "$1 does not print '$2'"
        xl domid "$1" >/dev/null 2>&1 || printed "$1" "$2" || fail "$1 is gone and has not printed '$2'"
        sleep 0.2
    done
}

# disk NAME MIB: makes an empty disk in RAM and prints its path.
disk() {
    truncate -s "${2}M" "/run/disks/$1.img"
    echo "/run/disks/$1.img"
}

# virtio_disk VDEV TARGET [OPTION...]: a guest's disk line for an uplink of the driver domain.
virtio_disk() {
    local vdev=$1 target=$2 options
    shift 2
    options=$(printf '%s,' "$@")
    echo "vdev=$vdev,format=raw,${options#,}specification=virtio,backendtype=standalone,backend=${dd:-driver-domain},target=$target"
}

# quoted WORD...: the words as a list of xl's.
quoted() {
    local word list=
    for word; do
        list+="'$word', "
    done
    echo "[ $list ]"
}

# driver_domain DISK... [-- OPTION...]: starts it with these disk lines of xl's, and waits until it serves. Settings of xl's may come
# among the disks as KEY=VALUE with a leading +, such as +memory=24, and network interfaces as vif:LINE. Disks after the
# second are attached one by one: libxl runs the hotplug scripts of one configuration at the same time, and gives them 10 s.
driver_domain() {
    local disks=() vifs=() settings=() name=${dd:-driver-domain}
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        case $1 in
        +*) settings+=("${1#+}") ;;
        vif:*) vifs+=("${1#vif:}") ;;
        *) disks+=("$1") ;;
        esac
        shift
    done
    [ $# = 0 ] || shift
    xl create $stubdom/xl/driver-domain.cfg "name='$name'" "disk=$(quoted "${disks[@]:0:2}")" "vif=$(quoted "${vifs[@]}")" \
        "extra='$*'" "${settings[@]}" || fail "the driver domain is not created"
    wait_printed "$name" "ready to serve" 30
    local disk
    for disk in "${disks[@]:2}"; do
        xl block-attach "$name" "$disk"
    done
}

# virtio_nic [KEY=VALUE...]: a guest's network device from the driver domain, with keys of `virtio-net-attach`.
virtio_nic() {
    echo "nic:$*"
}

# makes_virtio: whether this release's libxl knows of virtio= in a guest's configuration.
makes_virtio() {
    [ "$(cat /sys/hypervisor/version/minor)" -ge 18 ]
}

# guest NAME TYPE DISK... <SCRIPT: starts a Linux guest of type pv or pvh that runs the script on standard input.
# Settings of xl's may come among the disks as KEY=VALUE with a leading +, such as +memory=512; network interfaces of dom0's as
# vif:LINE, and those of the driver domain as virtio_nic prints them.
guest() {
    local name=$1 type=$2 word disks=() vifs=() nics=() settings=() paused= processor=
    shift 2
    for word; do
        case $word in
        +*) settings+=("${word#+}") ;;
        vif:*) vifs+=("${word#vif:}") ;;
        nic:*) nics+=("${word#nic:}") ;;
        *) disks+=("$word") ;;
        esac
    done
    local virtio=()
    for word in "${nics[@]}"; do
        ! makes_virtio || virtio+=("backend=${dd:-driver-domain},type=virtio,device1,transport=mmio,grant_usage=1")
        makes_virtio && [ -z "$word" ] || paused=-p
    done
    [ "$type" = pv ] || processor=$no_cx16
    cat >"$name.sh"
    mkguest "$name.sh" "$name.initrd"
    {
        echo "name = '$name'"
        echo "type = '$type'"
        echo "kernel = '$stubdom/guest/vmlinuz'"
        echo "ramdisk = '$PWD/$name.initrd'"
        echo "memory = 320"
        echo "extra = 'console=hvc0 loglevel=4 hostname=$name $quick_boot $processor'"
        echo "disk = $(quoted "${disks[@]}")"
        echo "vif = $(quoted "${vifs[@]}")"
        [ ${#virtio[@]} = 0 ] || echo "virtio = $(quoted "${virtio[@]}")"
        echo "on_crash = 'preserve'"
        printf '%s\n' "${settings[@]}"
    } >"$name.cfg"
    local status=0
    xl create $paused "$name.cfg" >"$name.create" 2>&1 || status=$?
    cat "$name.create"
    if [ $status = 0 ] && [ "$paused" ]; then
        local index
        for index in "${!nics[@]}"; do
            # shellcheck disable=SC2086
            $stubdom/xl/virtio-net-attach "$name" "${dd:-driver-domain}" devid="$index" ${nics[index]} || return
        done
        xl unpause "$name"
    fi
    # The domain builder is done with it, unless it boots the guest again; it would stay in RAM.
    [[ ${settings[*]} == *on_reboot* ]] || rm "$name.initrd"
    return $status
}

# The bed's network: a bridge of dom0's without a port to the outside. On it dom0 is 10.77.0.1 and fd77::1, hands out leases of 10.77.0.50
# to 10.77.0.99 and a prefix, serves the name files.bed, and has a web server and iperf3.
bridge=xenbr0

# network_up [MTU]: makes it, unless it is there, with leases for $lease_time. The runner takes it down after the scenario.
network_up() {
    [ ! -e /sys/class/net/$bridge ] || return 0
    mkdir -p /run/network
    cp -r /srv/bed/www /run/network/www
    modprobe bridge
    ip link add $bridge address 00:16:3e:77:00:01 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    ip link set $bridge mtu "${1:-1500}" up
    ip addr add 10.77.0.1/24 dev $bridge
    ip addr add fd77::1/64 dev $bridge nodad
    dnsmasq --conf-file=/dev/null --user=root --pid-file=/run/network/dnsmasq.pid --log-facility=/run/network/dnsmasq.log --log-dhcp \
        --interface=$bridge --bind-interfaces --except-interface=lo --no-resolv --no-hosts --log-queries \
        --dhcp-leasefile=/run/network/leases --dhcp-authoritative --no-ping --dhcp-range="10.77.0.50,10.77.0.99,${lease_time:-1h}" \
        --enable-ra --dhcp-range=fd77::,ra-only,64 --host-record=files.bed,10.77.0.1,fd77::1
    busybox httpd -f -p '[::]:80' -h /run/network/www &
    echo $! >/run/network/httpd.pid
    iperf_server 5201
}

# iperf_server PORT: another iperf3, which serves one client at a time.
iperf_server() {
    iperf3 --server --daemon --port "$1" --pidfile "/run/network/iperf3-$1.pid"
}

# stream MIB: bytes that are the same every time. They repeat themselves every 4 MB, but never at the same place of a page.
stream() {
    local block=/run/network/block number
    [ -e $block ] || seq 100000000 100399999 >$block
    head -c "$1M" < <(for ((number = 0; number <= $1 / 3; number++)); do echo "$number" && cat $block; done || true)
}

# served_file NAME MIB: puts a file of that size onto the web server, and prints its checksum.
served_file() {
    stream "$2" | tee "/run/network/www/$1" | sha256sum | cut -d' ' -f1
}

# lease NAME [SECONDS]: the IPv4 address that a guest got, which it has printed (by guest-lib's get_lease).
lease() {
    wait_printed "$1" "^lease " "${2:-200}" >&2
    sed -n 's|^lease [^ ]* \([0-9.]*\)/.*|\1|p' "$(console "$1")" | head -n 1
}

# vif DOMAIN [NUMBER]: the name of dom0's end of a domain's network interface.
vif() {
    echo "vif$(xl domid "$1").${2:-0}"
}

# replug DOMAIN SECONDS: dom0's back end lets go of the domain's first interface, and takes it again after a while.
replug() {
    local device
    device=vif-$(xl domid "$1")-0
    echo "$device" >/sys/bus/xen-backend/drivers/vif/unbind
    sleep "$2"
    echo "$device" >/sys/bus/xen-backend/drivers/vif/bind
    wait_until 10 "the back end is there again" test -e "/sys/class/net/$(vif "$1")"
    ip link set "$(vif "$1")" master $bridge up
    # What xl's hotplug script says when it has done that; the back end waits for it.
    xenstore-write "/local/domain/0/backend/vif/$(xl domid "$1")/0/hotplug-status" connected
}

# gone NAME: whether no domain has that name.
gone() {
    ! xl domid "$1" >/dev/null 2>&1
}

# guest_ends NAME [SECONDS [STATUS]]: waits until the guest's script has ended, with success or the given status, and the domain with it.
guest_ends() {
    wait_printed "$1" "guest.sh exits with [0-9]" "${2:-90}"
    local status
    status=$(sed -n 's/^guest.sh exits with \([0-9]*\).*/\1/p' "$(console "$1")" | tail -n 1)
    [ "$status" = "${3:-0}" ] || fail "the script in guest $1 exits with $status"
    wait_until 30 "guest $1 powers off" gone "$1"
}

# check WHAT COMMAND...: fails with WHAT unless the command succeeds.
check() {
    local what=$1
    shift
    "$@" || fail "$what"
}

# same WHAT ACTUAL EXPECTED
same() {
    [ "$2" = "$3" ] || fail "$1: '$2' instead of '$3'"
}

# client NAME EXTRA DEVICE...: starts the test client with these words on its command line. Devices are lines for disks, or network devices
# as virtio_nic prints them.
client() {
    local name=$1 extra=$2 word index disks=() nics=() virtio=() paused=
    shift 2
    for word; do
        case $word in
        nic:*) nics+=("${word#nic:}") ;;
        *) disks+=("$word") ;;
        esac
    done
    for word in "${nics[@]}"; do
        ! makes_virtio || virtio+=("backend=${dd:-driver-domain},type=virtio,device1,transport=mmio,grant_usage=1")
        makes_virtio && [ -z "$word" ] || paused=-p
    done
    # shellcheck disable=SC2086
    xl create ${create_options:-} $paused $stubdom/xl/client.cfg "name='$name'" "extra='$extra'" "disk=$(quoted "${disks[@]}")" \
        ${virtio:+"virtio=$(quoted "${virtio[@]}")"} 2>&1 | tee "$name.create" || return
    [ "$paused" ] || return 0
    for index in "${!nics[@]}"; do
        # shellcheck disable=SC2086
        $stubdom/xl/virtio-net-attach "$name" "${dd:-driver-domain}" devid="$index" ${nics[index]}
    done
    xl unpause "$name"
}

# client_passes NAME [SECONDS]: waits until the client is done, and fails with its first failure if it has one.
client_passes() {
    wait_printed "$1" 'passed [0-9]* failed [0-9]' "${2:-60}"
    ! printed "$1" 'not ok' || fail "client $1: $(grep -m 1 'not ok' "$(console "$1")")"
    printed "$1" 'failed 0' || fail "client $1 fails"
    wait_until 10 "client $1 powers off" gone "$1"
}

# mount_image FILE: mounts the file system in a disk's backing file, to be read at /mnt.
mount_image() {
    mkdir -p /mnt
    mount -o ro,loop "$1" /mnt
}

# usage: what the driver domain holds, by its own account: one KEY=VALUE a line. The heap, the pools of payload and the memory for frames
# grow on demand and keep their pages, so `pages` are those together with the free ones, and `grants` are without those of payload.
usage() {
    local name=${dd:-driver-domain} log reports
    log=$(console "$name")
    reports=$(grep -c 'counters:' "$log" || true)
    xl sysrq "$name" h
    wait_until 10 "$name reports its usage" more_reports "$log" "$reports"
    grep -o 'memory: .*\|grants: .*' "$log" | tail -n 2 | tr -d '\r' | tr '\n' ' ' | sed -E 's/.* KiB, ([0-9]+) KiB free, '\
'heap ([0-9]+) KiB, ([0-9]+) bytes of it used, ([0-9]+) KiB for payload, ([0-9]+) KiB kept for frames, ([0-9]+) KiB of foreign pages '\
'grants: ([0-9]+) of.*channels: ([0-9]+).*/\1 \2 \3 \4 \5 \6 \7 \8/' | awk 'NF != 8 { exit 1 }
        {
            print "pages=" ($1 + $2 + $4 + $5) / 4
            print "grants=" $7 - $4 / 4
            print "foreign=" $6 / 4
            print "channels=" $8
            print "heap=" $3
        }'
}

# at_rest FILE: writes what the driver domain holds by `usage`, once the counters have been published with what there is now,
# which is every ten seconds. Idle time costs no wall time.
at_rest() {
    sleep 12
    usage >"$1"
}

# What may come and go in the heap between two moments at rest, in bytes: the text of counters, which get longer, and the like.
heap_slack=2048

# holds_as_before FILE: fails unless the driver domain holds what it did when it was asked by `at_rest FILE`. What it has
# counted for a client goes within its next ten seconds. What its uplinks need for the load has to be there before: the table
# of a pool's pages is in the heap, and doubles when it is full.
holds_as_before() {
    local end=$((SECONDS + 15))
    until usage >now && not_more now "$1"; do
        [ $SECONDS -lt $end ] || fail "the driver domain holds" "$(paste -s -d ' ' now)" "and held" "$(paste -s -d ' ' "$1")"
        sleep 1
    done
    echo "the driver domain holds $(paste -s -d ' ' now), and held $(paste -s -d ' ' "$1")"
}

# not_more NOW BEFORE: whether these files of usage are the same but for the heap's slack.
not_more() {
    awk -F= -v slack=$heap_slack 'NR == FNR { before[$1] = $2; next }
        $1 == "heap" ? $2 > before[$1] + slack : $2 != before[$1] { exit 1 }' "$2" "$1"
}

more_reports() {
    [ "$(grep -c 'counters:' "$1")" -gt "$2" ]
}

# statistic NODE NAME: a counter that the driver domain publishes, such as `statistic net-uplink/vif0 tx-packets`, as it was at most ten
# seconds ago.
statistic() {
    xenstore-read "/local/domain/$(xl domid "${dd:-driver-domain}")/data/statistics/$1" | tr ' ' '\n' | sed -n "s/^$2=//p"
}

# counted NODE NAME...: whether these counters are not zero.
counted() {
    local node=$1 name value
    shift
    for name; do
        value=$(statistic "$node" "$name") && [ "${value:-0}" -gt 0 ] || return
    done
}

# cpu NAME: milliseconds of CPU time of a domain, in steps of 100.
cpu() {
    xl list | awk -v name="$1" '$1 == name { print $NF * 1000 }'
}

# counters: the driver domain's counters, one KEY=VALUE a line.
counters() {
    usage >/dev/null
    grep -o 'counters: .*' "$(console driver-domain)" | tail -n 1 | cut -d' ' -f2- | tr ' ' '\n'
}
