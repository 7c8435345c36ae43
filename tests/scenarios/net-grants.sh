# Where grants have run out, receive queues make do with fewer pages, and take more when there are grants again, though nothing else tells
# them.
# mostly: 4.20
need image
network_up
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 16)" +memory=32 +max_grant_frames=1 -- \
    segment.a=uplink=vif0 segment.b=uplink=vif1
wait_printed driver-domain 'uplink xvdb: connected'
grants() {
    usage >/dev/null
    grep -o 'grants: [0-9]* of [0-9]*' "$(console driver-domain)" | tail -n 1
}
all_granted() {
    [ "$(grants)" = "grants: 512 of 512" ]
}
for _ in 0 1; do
    xl network-attach driver-domain "bridge=$bridge"
done
wait_printed driver-domain 'uplink vif1: connected'
wait_until 10 "the queues take all grants" all_granted
xl block-detach driver-domain xvdb
wait_printed driver-domain 'uplink xvdb.*removed'
wait_until 10 "the queues take the grants of the disk's uplink" all_granted
