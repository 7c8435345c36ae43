# A segment that leads nowhere: its guests get addresses, one by a lease and one by its key, and reach the gateway, and
# neither dom0 nor, as they are isolated, each other. The keys beside a device decide on its segment, its addresses and
# its isolation; and it can be detached.
# mostly: 4.17
# timeout: 240
need image driver
network_up
driver_domain "vif:mac=00:16:3e:00:00:01,bridge=$bridge" +memory=32 -- \
    segment.lan=uplink=vif0 segment.private=address=10.2.0.1/24,dhcp=10.2.0.100-10.2.0.199,isolate \
    lease.private=00:16:3e:02:00:05,10.2.0.5
cat >script <<'G'
set -e
nic=$(wait_for_nic virtio_net)
get_lease $nic
ip -4 -o addr show dev $nic | grep -q "inet 10.2.0.$own/"
ping -q -c 3 -i 0.2 10.2.0.1
echo "is there"
read -r _ </dev/console
reaches() {
    # shellcheck disable=SC2086
    ping -q -c 3 -i 0.2 -W 1 $1 >/dev/null || return 1
    echo "reaches $1"
}
# With `!` alone, what is reached would not end the script.
unreachable() {
    if reaches "$1"; then return 1; fi
}
unreachable 10.2.0.$other
unreachable 10.77.0.1
# Nor with an address that belongs there, on the same wire.
ip addr add 10.77.0.9/24 dev $nic
unreachable 10.77.0.1
# Nor is an address of this network that is not the guest's one to be used.
ip addr add 10.2.0.77/24 dev $nic
unreachable "10.2.0.1 -I 10.2.0.77"
ip addr del 10.2.0.77/24 dev $nic
ping -q -c 3 -i 0.2 10.2.0.1
echo "is isolated"
read -r _ </dev/console
# The keys are read when the driver connects.
device=$(basename "$(realpath /sys/class/net/$nic/device/..)")
driver=/sys/bus/xen/drivers/virtio_msg_xen
echo "$device" >$driver/unbind
echo "$device" >$driver/bind
nic=$(wait_for_nic virtio_net)
get_lease $nic
for _ in $(seq 30); do
    ! reaches 10.2.0.$other || break
done
reaches 10.2.0.$other
echo "is not isolated"
read -r _ </dev/console
for _ in $(seq 100); do
    [ -e /sys/class/net/$nic ] || break
    sleep 0.1
done
[ ! -e /sys/class/net/$nic ]
no_kernel_warnings
G
{
    echo own=5 other=6
    cat script
} | guest one pv "$(virtio_nic segment=private mac=00:16:3e:02:00:05 ip=10.2.0.5)"
{
    echo own=6 other=5
    cat script
} | guest two pv "$(virtio_nic segment=private ip=10.2.0.6)"
# Both go on once both have come to that line.
together() {
    local name
    for name in one two; do
        wait_printed $name "^$1" 100
    done
    [ $# = 1 ] || "${@:2}"
    for name in one two; do
        echo >"$(xenstore-read "/local/domain/$(xl domid $name)/console/tty")"
    done
}
reconnect_without_isolation() {
    "$stubdom/xl/virtio-net-attach" one driver-domain isolate=0
    "$stubdom/xl/virtio-net-attach" two driver-domain isolate=0
}
detach() {
    local name
    for name in one two; do
        "$stubdom/xl/virtio-net-attach" --detach $name
        ! xenstore-exists "/local/domain/$(xl domid driver-domain)/backend/virtio/$(xl domid $name)/0" || fail "something is left of ${name}'s device"
    done
}
together "is there"
together "is isolated" reconnect_without_isolation
together "is not isolated" detach
for name in one two; do
    guest_ends $name 60
done
