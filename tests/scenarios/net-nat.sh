# A guest behind NAT: its reserved lease, names, downloads and pings by way of the driver domain's address, a
# port forward to it, a rule that stops it, a prefix for IPv6, a limit to its rate, and the counters by HTTP. Outside,
# where no guest is, the back end sends no groups but the driver domain's own.
# variants: pv@4.20 pvh@4.17
# timeout: 400
need image driver
lease_time=2m
network_up
sum=$(served_file data 16)
busybox httpd -f -p 10.77.0.1:81 -h /run/network/www &
echo $! >/run/network/httpd-81.pid
driver_domain "vif:mac=00:16:3e:00:00:01,bridge=$bridge" +memory=32 -- \
    segment.inside=address=10.1.0.1/24,address=fd10:1::1/64,dhcp=10.1.0.100-10.1.0.199,nat=outside \
    segment.outside=uplink=vif0,address=dhcp,address=fd77::5/64,metrics=9100 \
    lease.inside=00:16:3e:01:00:05,10.1.0.5 forward.inside=tcp:8080:10.1.0.5:80 rule.inside=deny,tcp,to=10.77.0.0/24,port=81
guest g "$variant" "$(virtio_nic mac=00:16:3e:01:00:05 rate=40)" <<G
set -e
nic=\$(wait_for_nic virtio_net)
get_lease \$nic
ping -q -c 3 -i 0.2 10.1.0.1
wait_for_prefix \$nic
ping -q -c 3 -i 0.2 fd10:1::1
ping -q -c 3 -i 0.2 10.77.0.1
busybox nslookup -type=a files.bed
busybox nslookup -type=a files.bed 10.77.0.1
download http://files.bed/data $sum
curl --silent --show-error --fail --output /tmp/data http://files.bed/data
upload /tmp/data http://files.bed/cgi-bin/upload $sum
iperf "TCP out" --client 10.77.0.1 --time 2
iperf "TCP in" --client 10.77.0.1 --time 2 --reverse
iperf "UDP out" --client 10.77.0.1 --udp --bitrate 10M --time 1
if curl --silent --max-time 5 http://10.77.0.1:81/data >/dev/null; then
    echo "the rule does not stop it"
    exit 1
fi
mkdir /run/www
echo "served by the guest" >/run/www/index.html
busybox httpd -p 80 -h /run/www
echo serving
read -r _ </dev/console
no_kernel_warnings
G
wait_printed g '^serving' 250
kept_back() {
    cat "/sys/class/net/$(vif driver-domain)/statistics/tx_dropped"
}
# What dom0 itself says is not kept back, so another station says it.
ip link add station type veth peer name port
ip link set port master "$bridge" up
ip addr add 10.99.0.1/24 dev station
ip addr add fd77::9/64 dev station nodad
ip link set station up
before=$(kept_back)
ping -q -c 5 -i 0.2 -W 1 -I station 224.0.0.99 || true
[ "$(kept_back)" -ge $((before + 5)) ] || fail "the back end keeps nothing back that is for other groups"
# Who looks for the address asks one of its groups.
ping -q -c 3 -i 0.2 -I station fd77::5
ip link del station
same "the guest's lease" "$(lease g)" 10.1.0.5
same "what port 81 serves to others" "$(curl --silent --fail http://10.77.0.1:81/data | sha256sum | cut -d' ' -f1)" "$sum"
outside=$(awk '$2 == "00:16:3e:00:00:01" { print $3 }' /run/network/leases)
same "what is behind the forwarded port" "$(curl --silent --show-error --max-time 10 "http://$outside:8080/")" "served by the guest"
curl --silent --show-error --max-time 10 "http://$outside:9100/metrics" >metrics
for counter in router_out_frames router_in_frames router_connections router_dhcp_leases_now router_dns_queries router_dns_answers \
    router_drop_denied net_transmit_packets net_receive_packets net_frames_in net_frames_out net_uplink_tx_packets net_uplink_rx_packets \
    domain_hypercalls; do
    grep -E -m 1 "^virtio_stubdom_$counter(\{[^}]*\})? [1-9]" metrics || fail "nothing is counted as $counter: $(grep "_$counter" metrics)"
done
# A port without a forward leads nowhere.
! curl --silent --max-time 2 "http://$outside:8081/" || fail "a port is forwarded that should not be"
# Half of the lease's time after it was given, and the address stays.
renewed() {
    [ "$(grep -c "DHCPACK.* $outside 00:16:3e:00:00:01" /run/network/dnsmasq.log)" -ge 2 ]
}
wait_until 90 "the address outside is renewed" renewed
same "what is behind the forwarded port" "$(curl --silent --show-error --max-time 10 "http://$outside:8080/")" "served by the guest"
echo >"$(xenstore-read "/local/domain/$(xl domid g)/console/tty")"
guest_ends g 60
# What may go at once after a rest counts, and what the sender's buffers still hold when its time is up. Without the limit, it is
# hundreds.
tr -d '\r' <"$(console g)" | grep '^iperf' | tee rates
[ "$(awk '{ for (i = 2; i <= NF; i++) if ($i == "Mbits/sec" && $(i - 1) < 60) slow++ } END { print slow }' rates)" = "$(wc -l <rates)" ] ||
    fail "something goes much faster than 40 Mbit/s"
