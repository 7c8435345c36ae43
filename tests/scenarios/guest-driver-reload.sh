# The bus driver is unloaded, loaded, unbound and bound while the guest runs, and leaves no trace of it.
# variants: pv@4.17 pvh@4.20
# timeout: 400
need image driver client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)"
client c "test=basic" "$(virtio_disk xvda xvdb access=rw)"
client_passes c 120
at_rest before
guest g "$variant" "$(virtio_disk xvda xvdb access=rw)" <<'G'
set -e
wait_for /dev/vda
device=$(echo /sys/bus/xen/devices/virtio_disk-*)
for _ in 1 2 3; do
    fio_verify /dev/vda 4 1 4k-64k 256k
    # xenbus keeps a driver from being unloaded as long as it has devices.
    if rmmod virtio_msg_xen 2>/dev/null; then exit 1; fi
    basename "$device" >"$device/driver/unbind"
    [ ! -e /dev/vda ]
    rmmod virtio_msg_xen
    modprobe virtio_msg_xen
    wait_for /dev/vda
done
driver=$(realpath "$device/driver")
for _ in 1 2 3; do
    basename "$device" >"$driver/unbind"
    [ ! -e /dev/vda ]
    basename "$device" >"$driver/bind"
    wait_for /dev/vda
    fio_verify /dev/vda 4 1 4k-64k 256k
done
no_kernel_warnings
G
guest_ends g 240
holds_as_before before
