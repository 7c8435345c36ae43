# The uplink's back end goes and comes back while a guest writes: nothing is lost, and nothing fails.
# timeout: 400
need image driver
file=$(disk b 64)
driver_domain "vdev=xvdb,format=raw,access=rw,target=$file"
guest g pv "$(virtio_disk xvda xvdb access=rw)" <<'G'
set -e
wait_for /dev/vda
echo writing
for _ in $(seq 24); do
    fio_verify /dev/vda 16 2 4k-64k 2m
done
no_kernel_warnings
G
wait_printed g writing 200
# As when a back end's domain restarts: dom0's back end lets go of the device, and takes it again. (To detach it with xl would
# wait until no guest uses it.)
device=vbd-$(xl domid driver-domain)-51728 # xvdb
back_end=/sys/bus/xen-backend/drivers/vbd
for _ in 1 2 3 4; do
    sleep 1
    echo "$device" >$back_end/unbind
    sleep 1
    echo "$device" >$back_end/bind
done
guest_ends g 200
connections=$(grep -c 'persistent grants' "$(console driver-domain)")
[ "$connections" = 5 ] || fail "the uplink was connected $connections times instead of 5"
