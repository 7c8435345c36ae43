# Guests come, use the network, and are destroyed while they do: the last leaves the driver domain with what the first left it.
# mostly: 4.17
# timeout: 400
need image driver
# What is kept for more frames, of which there were at times more in flight than with the first guests, is listed on the heap.
heap_slack=4096
network_up
served_file data 256 >/dev/null
driver_domain "vif:mac=00:16:3e:00:00:01,bridge=$bridge" +memory=32 -- segment.lan=uplink=vif0
for number in 1 2 3 4; do
    guest "g$number" pv "$(virtio_nic)" <<'G'
set -e
nic=$(wait_for_nic virtio_net)
get_lease $nic
ping -f -q 10.77.0.1 >/dev/null &
curl --silent --output /dev/null http://files.bed/data &
truncate -s 1G /tmp/zeros
curl --silent --output /dev/null -X POST -T /tmp/zeros http://files.bed/cgi-bin/upload &
echo busy
wait
G
    wait_printed "g$number" '^busy' 100
    sleep "$number"
    back_end=$(xenstore-read "/local/domain/$(xl domid "g$number")/device/virtio/0/backend")
    xl destroy "g$number"
    wait_until 15 "its back end is gone" eval "! xenstore-exists $back_end"
    # The first ones may fill what is kept.
    [ "$number" != 2 ] || at_rest before
done
holds_as_before before
