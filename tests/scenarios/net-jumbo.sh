# Jumbo frames: the uplink's MTU reaches the guest, and pings of every size up to it come back. With four queues, of the guest's, which can
# be resized, and of the uplink's, which all carry packets both ways.
# mostly: 4.20
# timeout: 300
need image driver
network_up 9000
# Without this, netback offers as many queues as dom0 has processors: one.
max_queues=/sys/module/xen_netback/parameters/max_queues
default_queues=$(cat $max_queues)
trap 'echo "$default_queues" >$max_queues' EXIT
echo 4 >$max_queues
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
for port in $(seq 20000 20099); do
    echo >"/dev/udp/10.77.0.1/$port"
done
busy=$(grep -c ' [1-9][0-9]* .*virtio-[0-9]*-output' /proc/interrupts)
echo "busy $busy"
ethtool -G $nic rx 64 tx 64
iperf "TCP out, short queues" --client 10.77.0.1 --time 1
iperf "TCP in, short queues" --client 10.77.0.1 --time 1 --reverse
no_kernel_warnings
G
address=$(lease g)
ping-sweep "$address" 28 9000
uplink=$(vif driver-domain)
same "the uplink's queues" "$(xenstore-read "/local/domain/$(xl domid driver-domain)/device/vif/0/multi-queue-num-queues")" 4
# Each port is a flow of its own; the guest sends as many the other way.
for port in $(seq 20000 20099); do
    echo >"/dev/udp/$address/$port"
done
echo >"$(xenstore-read "/local/domain/$(xl domid g)/console/tty")"
wait_printed g '^busy' 200
# How many requests netback has answered, by queue.
mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
for queue in 0 1 2 3; do
    awk -v queue=$queue '/^[TR]X:/ { way = $1 } /^rsp prod/ { print "the uplink, queue", queue, way, $3 }' \
        "/sys/kernel/debug/xen-netback/$uplink/io_ring_q$queue"
done | tee used
same "the uplink's queues that carry packets, both ways" "$(grep -c ' [1-9][0-9]*$' used)" 8
guest_ends g 240
grep 'iperf\|^busy\|packets' "$(console g)"
printed g '^mtu 9000' || fail "the guest has not got the MTU: $(grep '^mtu' "$(console g)")"
printed g '^queues 4' || fail "the guest does not use four queues: $(grep '^queues' "$(console g)")"
printed g '^busy [2-4]' || fail "the flows do not spread over the queues"
