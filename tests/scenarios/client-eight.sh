# 16 MiB serve eight clients with a disk each.
# mostly: 4.20
# timeout: 500
need image client
disks=()
for letter in b c d e f g h i; do
    disks+=("vdev=xvd$letter,format=raw,access=rw,target=$(disk $letter 8)")
done
driver_domain "${disks[@]}"
for letter in b c d e f g h i; do
    client "c$letter" "loglevel=info test=basic seed=1" "$(virtio_disk xvda xvd$letter access=rw)"
done
for letter in b c d e f g h i; do
    client_passes "c$letter" 300
done
usage
