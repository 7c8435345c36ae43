# Verified reads and writes in a guest: 4 KiB to 1 MiB, depth 1 to 64, four jobs at once.
# variants: pv@4.20 pvh@4.17
# timeout: 600
need image driver
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 128)"
# fio's buffers at depth 64 are 256 MiB.
guest g "$variant" "$(virtio_disk xvda xvdb access=rw)" +memory=640 <<'G'
set -e
wait_for /dev/vda
fio_verify /dev/vda 1 1 4k 256k
fio_verify /dev/vda 64 4 4k 512k
fio_verify /dev/vda 1 4 4k-1m 2m
fio_verify /dev/vda 16 4 512-64k 256k
fio_verify /dev/vda 64 4 1m 8m
no_kernel_warnings
G
guest_ends g 540
