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
watch_carrier() {
    local old= new
    while :; do
        new=\$(cat /sys/class/net/\$nic/carrier)
        [ "\$new" = "\$old" ] || echo "carrier \$new"
        old=\$new
        sleep 0.1
    done
}
watch_carrier &
echo downloading
curl --silent --show-error --fail --limit-rate 3M --output /tmp/data http://files.bed/data
[ "\$(sha256sum </tmp/data)" = "$sum  -" ]
echo "the download is complete"
kill %1
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
same "what the guest sees of its link" "$(sed -n 's/\r//; s/^carrier //p' "$(console g)" | tr '\n' ' ')" "1 0 1 0 1 "
