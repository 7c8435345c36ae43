# Captures what a guest and dom0 send each other through the driver domain, for network/tests/replay.rs:
#
#     cargo xtask lab --script tests/capture.sh --add tests/lib.sh:/srv/bed/lib.sh --logs FOLDER
#     cp FOLDER/bed.pcap network/tests/data/
#
# In it: DHCP, ARP, neighbour discovery, router advertisements, DNS, ping with fragments, HTTP both ways as large segments and as packets
# of the line's size, UDP, and VLAN tags.

. /srv/bed/lib.sh
network_up
sum=$(served_file data 1)
head -c 40000 /run/network/www/data >/run/network/www/small
ip link add link "$bridge" name vlan7 type vlan id 7
ip addr add 10.77.7.1/24 dev vlan7
ip link set vlan7 up
driver_domain "vif:mac=00:16:3e:00:00:01,bridge=$bridge" +memory=32 -- segment.lan=uplink=vif0
interface=$(vif driver-domain)
wait_until 30 "the uplink is there" test -e "/sys/class/net/$interface"
# As the user who may write to the folder of logs.
tcpdump -Z root -i "$interface" -s 0 -U -w /var/log/xen/bed.pcap 2>/run/tcpdump.log &
tcpdump=$!
guest g pv "$(virtio_nic)" <<'G'
set -e
nic=$(wait_for_nic virtio_net)
get_lease $nic
wait_for_prefix $nic
ping -q -c 1 10.77.0.1
ping -q -c 1 -s 3000 10.77.0.1
ping -q -c 1 -s 3000 fd77::1
curl --silent --fail --output /run/small http://files.bed/small
upload /run/small http://files.bed/cgi-bin/upload "$(sha256sum </run/small | cut -d' ' -f1)"
ethtool -K $nic tso off gso off gro off
curl --silent --fail --output /run/small -6 http://files.bed/small
iperf3 --client 10.77.0.1 --udp --length 200 --blockcount 5
ip link add link $nic name vlan7 type vlan id 7
ip addr add 10.77.7.2/24 dev vlan7
ip link set vlan7 up
ping -q -c 2 -s 1472 -M do 10.77.7.1
G
guest_ends g 200
kill $tcpdump
wait $tcpdump || true
cat /run/tcpdump.log
ls -l /var/log/xen/bed.pcap
