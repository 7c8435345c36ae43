# In a guest that is restored, drivers are unbound and bound before the driver domain answers.
# mostly: 4.20
# timeout: 400
need image driver
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)"
guest g pv "$(virtio_disk xvda xvdb access=rw)" +memory=256 <<'G'
set -e
wait_for /dev/vda
drivers=/sys/bus/virtio/drivers/virtio_blk
device=$(basename $drivers/virtio*)
for round in 1 2; do
    fio_verify /dev/vda 4 1 4k-64k 256k
    before=$(freezes)
    echo "ready $round"
    while [ "$(freezes)" = "$before" ]; do sleep 0.1; done
    case $round in
    1)
        echo "$device" >$drivers/unbind
        [ ! -e /dev/vda ]
        echo "$device" >$drivers/bind
        ;;
    2) echo "$device" >$drivers/unbind ;;
    esac
    echo "unbound $round"
    [ "$round" = 1 ] || { sleep 5; echo "$device" >$drivers/bind; }
    until dd if=/dev/vda of=/dev/null bs=4k count=1 iflag=direct status=none 2>/dev/null; do sleep 0.1; done
done
fio_verify /dev/vda 4 1 4k-64k 256k
! dmesg | grep -E 'BUG|WARNING|Call Trace'
G
for round in 1 2; do
    wait_printed g "^ready $round" 200
    xl save g saved
    xl restore -p saved
    xl pause driver-domain
    xl unpause g
    wait_printed g "^unbound $round"
    xl unpause driver-domain
done
rm saved
guest_ends g 200
