# Where grants have run out, receive queues make do with fewer pages, and take more when there are grants again, though nothing tells them.
# mostly: 4.20
need image
# On this bridge nobody says anything that would wake them.
modprobe bridge
ip link add quiet type bridge mcast_snooping 0
trap 'ip link del quiet; echo 0 >/proc/sys/net/ipv6/conf/default/disable_ipv6' EXIT
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
echo 1 >/proc/sys/net/ipv6/conf/quiet/disable_ipv6
ip link set quiet up
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 16)" +memory=32 +max_grant_frames=1 -- \
    segment.a=uplink=vif0 segment.b=uplink=vif1
wait_printed driver-domain 'uplink xvdb is connected'
grants() {
    usage >/dev/null
    grep -o 'grants: [0-9]* of [0-9]*' "$(console driver-domain)" | tail -n 1
}
echo "the disk's uplink: $(grants)"
for number in 0 1; do
    xl network-attach driver-domain bridge=quiet
    wait_printed driver-domain "uplink vif$number: connected"
done
same "what is granted with two network uplinks" "$(grants)" "grants: 512 of 512"
xl block-detach driver-domain xvdb
wait_printed driver-domain 'uplink xvdb: the device'
# By now the grants of the disk's uplink have come back.
sleep 3
same "what is granted without the disk's uplink" "$(grants)" "grants: 512 of 512"
