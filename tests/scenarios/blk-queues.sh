# A guest with four processors uses four queues of its disk at once.
# mostly: 4.20
# timeout: 240
need image driver
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 64)" -- disk.data=xvdb,queues=4
guest g pv "$(virtio_disk xvda data access=rw)" +vcpus=4 <<'G'
set -e
wait_for /dev/vda
[ "$(ls /sys/block/vda/mq | wc -l)" = 4 ]
fio_verify /dev/vda 8 4 4k-64k 1m
# Each queue that was used has had interrupts, at one of the four processors.
grep 'req\.[0-9]' /proc/interrupts
[ "$(awk '/req\.[0-9]/ && $2 + $3 + $4 + $5 > 0' /proc/interrupts | wc -l)" -ge 2 ]
no_kernel_warnings
G
guest_ends g 200
