# Jumbo frames: the uplink's MTU reaches the guest, and pings of every size up to it come back. With four queues, which all work, and which
# can be resized.
# mostly: 4.20
# timeout: 300
need image driver
network_up 9000
driver_domain "vif:mac=00:16:3e:00:00:01,bridge=$bridge" +memory=48 -- segment.lan=uplink=vif0,queues=4
guest g pv "$(virtio_nic)" +vcpus=4 <<'G'
set -e
nic=$(wait_for_nic virtio_net)
echo "mtu $(cat /sys/class/net/$nic/mtu)"
get_lease $nic
ping -q -c 3 -i 0.2 -s 8972 -M do 10.77.0.1
# The sweep from dom0 goes on meanwhile.
read -r _ </dev/console
echo "queues $(ethtool -l $nic | awk '/^Combined:/ { print $2 }' | tail -n 1)"
iperf "TCP out, 8 flows" --client 10.77.0.1 --time 3 --parallel 8
iperf "TCP in, 8 flows" --client 10.77.0.1 --time 3 --parallel 8 --reverse
busy=$(grep -c ' [1-9][0-9]* .*virtio-[0-9]*-output' /proc/interrupts)
echo "busy $busy"
ethtool -G $nic rx 64 tx 64
iperf "TCP out, short queues" --client 10.77.0.1 --time 1
iperf "TCP in, short queues" --client 10.77.0.1 --time 1 --reverse
no_kernel_warnings
G
address=$(lease g)
ping-sweep "$address" 28 9000
echo >"$(xenstore-read "/local/domain/$(xl domid g)/console/tty")"
guest_ends g 240
grep 'iperf\|^busy\|packets' "$(console g)"
printed g '^mtu 9000' || fail "the guest has not got the MTU: $(grep '^mtu' "$(console g)")"
printed g '^queues 4' || fail "the guest does not use four queues: $(grep '^queues' "$(console g)")"
printed g '^busy [2-4]' || fail "the flows do not spread over the queues"
