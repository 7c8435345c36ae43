# A stock guest on plain blkfront: what the bed itself can do, and what the served disks are compared with.
# variants: pv@4.20 pvh@4.17
# timeout: 300
guest g "$variant" "vdev=xvda,format=raw,access=rw,target=$(disk plain 64)" <<'G'
set -e
wait_for /dev/xvda
fio_verify /dev/xvda 8 1 4k-256k 8m
no_kernel_warnings
G
guest_ends g 240
