# A segment that leads nowhere: its guests get addresses, one by a lease and one by its key, and reach the
# gateway, and neither dom0 nor, as they are isolated, each other.
# mostly: 4.17
# timeout: 240
need image driver
network_up
driver_domain "vif:mac=00:16:3e:00:00:01,bridge=$bridge" +memory=32 -- \
    segment.private=address=10.2.0.1/24,dhcp=10.2.0.100-10.2.0.199,isolate segment.lan=uplink=vif0 \
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
    ping -q -c 3 -i 0.2 -W 1 "$1" >/dev/null || return 1
    echo "reaches $1"
}
! reaches 10.2.0.$other
! reaches 10.77.0.1
# Nor with an address that belongs there, on the same wire.
ip addr add 10.77.0.9/24 dev $nic
! reaches 10.77.0.1
ping -q -c 3 -i 0.2 10.2.0.1
no_kernel_warnings
G
{
    echo own=5 other=6
    cat script
} | guest one pv "$(virtio_nic mac=00:16:3e:02:00:05)"
{
    echo own=6 other=5
    cat script
} | guest two pv "$(virtio_nic ip=10.2.0.6)"
for name in one two; do
    wait_printed $name '^is there' 100
done
for name in one two; do
    echo >"$(xenstore-read "/local/domain/$(xl domid $name)/console/tty")"
done
for name in one two; do
    guest_ends $name 60
done
