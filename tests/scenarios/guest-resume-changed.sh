# A guest is restored with a driver domain that has changed: it sees that its disk has grown; without a back end, its
# requests fail; with fewer queues than before, the disk is given up.
# mostly: 4.20
# timeout: 500
need image driver
file=$(disk b 32)
new_driver_domain() {
    driver_domain "vdev=xvdb,format=raw,access=rw,target=$file" -- "disk.data=xvdb,queues=$1"
}
new_driver_domain 3
guest g pv "$(virtio_disk xvda data access=rw)" +vcpus=3 +memory=256 <<'G'
set -e
await_freeze() {
    local before
    before=$(freezes)
    echo "ready $1"
    while [ "$(freezes)" = "$before" ]; do sleep 0.1; done
}
requests_fail() {
    local cpu
    for cpu in 0 1 2; do
        ! taskset -c $cpu dd if=/dev/vda of=/dev/null bs=4k count=1 iflag=direct || return 1
    done
}
wait_for /dev/vda
[ "$(ls /sys/block/vda/mq | wc -l)" = 3 ]
fio_verify /dev/vda 4 2 4k-64k 256k
await_freeze 1
until [ "$(blockdev --getsize64 /dev/vda)" = $((48 << 20)) ]; do sleep 0.1; done
fio_verify /dev/vda 4 2 4k-64k 256k
await_freeze 2
requests_fail
await_freeze 3
fio_verify /dev/vda 4 2 4k-64k 256k
await_freeze 4
while [ -e /dev/vda ]; do sleep 0.1; done
dmesg | grep 'the device cannot be restored'
! dmesg | grep -E 'BUG|WARNING|Call Trace'
G
for round in 1 2 3 4; do
    wait_printed g "^ready $round" 200
    xl save g saved
    case $round in
    1)
        xl destroy driver-domain
        truncate -s 48M "$file"
        new_driver_domain 3
        ;;
    4)
        xl destroy driver-domain
        new_driver_domain 2
        ;;
    esac
    xl restore -p saved
    [ $round != 2 ] || xenstore-rm "/local/domain/$(xl domid driver-domain)/backend/virtio_disk/$(xl domid g)"
    xl unpause g
done
rm saved
guest_ends g 200
