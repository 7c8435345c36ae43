# The uplink's back end goes and comes back while a guest writes: nothing is lost, and nothing fails.
# timeout: 400
need image driver
file=$(disk b 64)
driver_domain "vdev=xvdb,format=raw,access=rw,target=$file"
guest g pv "$(virtio_disk xvda xvdb access=rw)" <<'G'
set -e
wait_for /dev/vda
# It writes for as long as dom0 lets it.
{ read -r _ </dev/console && touch /run/enough; } &
echo writing
until [ -e /run/enough ]; do
    fio_verify /dev/vda 16 2 4k-64k 2m
done
no_kernel_warnings
G
wait_printed g writing 200
# As when a back end's domain restarts: dom0's back end lets go of the device, and takes it again. (To detach it with xl would
# wait until no guest uses it.)
device=vbd-$(xl domid driver-domain)-51728 # xvdb
back_end=/sys/bus/xen-backend/drivers/vbd
connections() {
    grep -c 'persistent grants' "$(console driver-domain)"
}
connected() { # TIMES
    [ "$(connections)" = "$1" ]
}
for number in 2 3 4 5; do
    sleep 1
    echo "$device" >$back_end/unbind
    sleep 1
    echo "$device" >$back_end/bind
    # As long as connections end soon, the driver domain waits twice as long before each.
    wait_until 30 "the uplink is connected again" connected $number
done
echo >"$(xenstore-read "/local/domain/$(xl domid g)/console/tty")"
guest_ends g 200
same "how often the uplink was connected" "$(connections)" 5
