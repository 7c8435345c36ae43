# An uplink with sectors of 4096 bytes is a disk with blocks of 4096 bytes.
# mostly: 4.17
# timeout: 240
need image driver
loop=$(losetup --show --find --sector-size 4096 "$(disk b 32)")
driver_domain "vdev=xvdb,format=raw,access=rw,target=$loop"
guest g pv "$(virtio_disk xvda xvdb access=rw)" <<'G'
set -e
wait_for /dev/vda
[ "$(blockdev --getss /dev/vda)" = 4096 ]
[ "$(blockdev --getsize64 /dev/vda)" = $((32 << 20)) ]
fio_verify /dev/vda 8 1 4k-64k 2m
no_kernel_warnings
G
guest_ends g 180
