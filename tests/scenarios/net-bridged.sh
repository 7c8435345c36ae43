# A guest on dom0's bridge: lease, name, IPv4 and IPv6, downloads and uploads with checksums, iperf3 in all ways, VLAN tags.
# variants: pv@4.17 pvh@4.20
# timeout: 800
need image driver
network_up
# In MiB. 256 take an emulated PVH guest many minutes.
size=16
[ -z "${full:-}" ] || size=256
sum=$(served_file data "$size")
ip link add link "$bridge" name vlan7 type vlan id 7
ip addr add 10.77.7.1/24 dev vlan7
ip link set vlan7 up
driver_domain "vif:mac=00:16:3e:00:00:01,bridge=$bridge" +memory=32 -- segment.lan=uplink=vif0
guest g "$variant" "$(virtio_nic)" +memory=$((320 + 2 * size)) <<G
set -e
nic=\$(wait_for_nic virtio_net)
get_lease \$nic
echo "offloads: \$(ethtool -k \$nic | grep -E '^(tx-checksumming|scatter-gather|tcp-segmentation-offload|generic-receive-offload|rx-checksumming): ' | tr '\n' ' ')"
wait_for_prefix \$nic
ping -q -c 3 -i 0.2 10.77.0.1
ping -q -c 3 -i 0.2 -s 3000 fd77::1
curl --silent --show-error --fail --output /tmp/data http://files.bed/data
[ "\$(sha256sum </tmp/data)" = "$sum  -" ]
upload /tmp/data http://files.bed/cgi-bin/upload $sum
rm /tmp/data
iperf "TCP out" --client 10.77.0.1 --time 3
iperf "TCP in" --client 10.77.0.1 --time 3 --reverse
iperf "TCP both" --client fd77::1 --time 3 --bidir
for length in 64 1400 9000 65507; do
    iperf "UDP \$length out" --client 10.77.0.1 --udp --bitrate 10M --length \$length --time 1
    iperf "UDP \$length in" --client 10.77.0.1 --udp --bitrate 10M --length \$length --time 1 --reverse
done
ip link add link \$nic name vlan7 type vlan id 7
ip addr add 10.77.7.2/24 dev vlan7
ip link set vlan7 up
ping -q -c 3 -i 0.2 -s 1472 -M do 10.77.7.1
iperf "TCP out, tagged" --client 10.77.7.1 --time 1
iperf "TCP in, tagged" --client 10.77.7.1 --time 1 --reverse
no_kernel_warnings
G
lease g >/dev/null
# Since there is a guest, whose groups are not known.
same "whether groups are kept back" "$(xenstore-read "/local/domain/$(xl domid driver-domain)/device/vif/0/request-multicast-control")" 0
nic=net/$(xl domid g)/0
wait_until 60 "the device's packets are counted" counted "$nic" receive-packets receive-bytes transmit-packets transmit-bytes frames-in \
    frames-out control-obeyed
guest_ends g 740
grep iperf "$(console g)"
# What was counted last is published within ten seconds.
sleep 11
for counter in rx-packets rx-segmented tx-packets tx-segmented tx-software; do
    declare "${counter//-/_}=$(statistic net-uplink/vif0 $counter)"
done
# shellcheck disable=SC2154
echo "received $rx_packets, $rx_segmented of them large; sent $tx_packets, $tx_segmented of them large, $tx_software finished in software"
[ "$rx_segmented" -gt 100 ] || fail "large segments do not come in as one"
[ "$tx_segmented" -gt 100 ] || fail "large segments do not go out as one"
[ $((tx_software * 10)) -lt "$tx_packets" ] || fail "$tx_software of $tx_packets frames are finished in software"
