# The uplink's back end goes and comes back: the guest sees its link go down and up, and a download that was under way
# completes. The bus driver is unloaded and loaded, and the network works again.
# variants: pv@4.17 pvh@full
# timeout: 300
need image driver
network_up
sum=$(served_file data 24)
driver_domain "vif:mac=00:16:3e:00:00:01,bridge=$bridge" +memory=32 -- segment.lan=uplink=vif0
guest g "$variant" "$(virtio_nic)" <<G
set -e
nic=\$(wait_for_nic virtio_net)
get_lease \$nic
# How often the link has gone down and up. Who watches it may miss a time as short as it is down.
changes() {
    echo "changes \$(cat /sys/class/net/\$nic/carrier_down_count) \$(cat /sys/class/net/\$nic/carrier_up_count)"
}
changes
echo downloading
curl --silent --show-error --fail --limit-rate 3M --output /tmp/data http://files.bed/data
[ "\$(sha256sum </tmp/data)" = "$sum  -" ]
echo "the download is complete"
changes
device=\$(basename "\$(realpath /sys/class/net/\$nic/device/..)")
for _ in 1 2; do
    echo "\$device" >/sys/bus/xen/drivers/virtio_msg_xen/unbind
    [ ! -e /sys/class/net/\$nic ]
    rmmod virtio_msg_xen
    modprobe virtio_msg_xen
    nic=\$(wait_for_nic virtio_net)
    get_lease \$nic
    download http://files.bed/data $sum
done
no_kernel_warnings
G
wait_printed g downloading 120
for _ in 1 2; do
    sleep 1
    replug driver-domain 1
done
guest_ends g 200
same "how often the guest's link went down and up" "$(tr -d '\r' <"$(console g)" | awk '
    $1 == "changes" { now = $2 - down " " $3 - up; down = $2; up = $3 }
    END { print now }')" "2 2"
