# A guest floods: small packets, broadcasts, ARP requests, new connections. Its neighbour goes on. In the variant netfront both are on dom0's
# bridge by plain netfront, to compare: docs/results.md has what the neighbour got. One processor emulates them all, so shares are proven in
# network/tests/fairness.rs.
# variants: virtio@4.17 netfront@full
# timeout: 400
need image driver
network_up
iperf_server 5202
if [ "$variant" = netfront ]; then
    nic=vif:bridge=$bridge driver=vif
else
    driver_domain "vif:mac=00:16:3e:00:00:01,bridge=$bridge" +memory=32 -- segment.lan=uplink=vif0
    nic=$(virtio_nic) driver=virtio_net
fi
{
    echo "driver=$driver"
    cat <<'G'
set -e
nic=$(wait_for_nic $driver)
ip addr add 10.77.0.12/24 dev $nic
ip link set $nic up
ping -q -c 1 10.77.0.1
ip route add 10.78.0.0/16 dev $nic
echo 100000 >/proc/sys/net/ipv4/neigh/default/gc_thresh3
modprobe pktgen
echo "add_device $nic" >/proc/net/pktgen/kpktgend_0
# Sends UDP packets of 60 bytes to an Ethernet address, as fast as the device takes them.
packets() {
    local setting
    for setting in "count 0" "pkt_size 60" "delay 0" "dst_mac $1" "dst $2" "udp_dst_min 9" "udp_dst_max 9"; do
        echo "$setting" >"/proc/net/pktgen/$nic"
    done
    echo start >/proc/net/pktgen/pgctrl
}
set +e
echo ready
while read -r kind </dev/console; do
    [ -z "$flood" ] || kill $flood
    flood=
    case $kind in
    small) packets 00:16:3e:77:00:01 10.77.0.1 & flood=$! ;;
    broadcast) packets ff:ff:ff:ff:ff:ff 10.77.0.255 & flood=$! ;;
    # Each is for a neighbour that nobody has asked for.
    arp) for address in 10.78.{0..255}.{1..255}; do echo >"/dev/udp/$address/9"; done & flood=$! ;;
    connections) while :; do exec 4<>/dev/tcp/10.77.0.1/80; exec 4>&-; done 2>/dev/null & flood=$! ;;
    quiet) ;;
    end) break ;;
    esac
    echo "flood $kind"
done
true
G
} | guest flooder pv "$nic"
{
    echo "driver=$driver"
    cat <<'G'
set -e
nic=$(wait_for_nic $driver)
ip addr add 10.77.0.11/24 dev $nic
ip link set $nic up
ping -q -c 1 10.77.0.1
echo ready
while read -r kind </dev/console && [ "$kind" != end ]; do
    iperf "$kind" --client 10.77.0.1 --time 4 --port 5202
done
no_kernel_warnings
G
} | guest neighbour pv "$nic"
for name in flooder neighbour; do
    wait_printed $name '^ready' 120
done
say() { # NAME WORD
    echo "$2" >"$(xenstore-read "/local/domain/$(xl domid "$1")/console/tty")"
}
for kind in quiet small broadcast arp connections; do
    say flooder $kind
    wait_printed flooder "^flood $kind" 30
    say neighbour $kind
    wait_printed neighbour "^iperf $kind" 60
done
say flooder end
say neighbour end
guest_ends neighbour 60
# Mbit/s with this flood.
rate() {
    sed -n "s|^iperf $1: .* \([0-9.]*\) Mbits/sec.*|\1|p" "$(console neighbour)" | tail -n 1
}
alone=$(rate quiet)
# A fourth of what the neighbour had when this was written, which was a fourth of what it has alone; of plain netfront nothing is expected.
part=16
[ "$variant" = virtio ] || part=10000
starved=
for kind in small broadcast arp connections; do
    rate=$(rate $kind)
    echo "the neighbour's TCP beside a flood ($kind): $rate of $alone Mbit/s"
    awk -v rate="$rate" -v least="$alone" -v part=$part 'BEGIN { exit !(rate * part >= least) }' || starved+="$kind: $rate of $alone Mbit/s; "
done
[ -z "$starved" ] || fail "$starved"
