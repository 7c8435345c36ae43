# Verified reads and writes in a guest: 4 KiB to 1 MiB, depth 1 to 64, four jobs at once.
# variants: pv@4.20 pvh@4.17
# timeout: 600
need image driver
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 256)"
# fio's buffers of 1 MiB at depth 64 are 256 MiB for four jobs.
guest g "$variant" "$(virtio_disk xvda xvdb access=rw)" +memory=640 <<'G'
set -e
wait_for /dev/vda
# How often, in percent, fio had so many requests under way: "16=" is of 16 to 31.
reached() {
    grep "IO depths .* $1=[1-9]" /run/fio || { cat /run/fio; return 1; }
}
fio_verify /dev/vda 1 1 4k 256k
fio_verify /dev/vda 64 4 4k 512k
reached '>=64'
fio_verify /dev/vda 1 4 4k-1m 2m
fio_verify /dev/vda 16 4 512-64k 2m
reached 16
fio_verify /dev/vda 64 4 4k-1m 64m
reached '>=64'
fio_verify /dev/vda 64 4 1m 8m
no_kernel_warnings
G
guest_ends g 540
