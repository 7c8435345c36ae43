# 16 MiB serve eight clients with a disk each.
# mostly: 4.20
# timeout: 500
need image client
disks=()
for letter in b c d e f g h i; do
    disks+=("vdev=xvd$letter,format=raw,access=rw,target=$(disk $letter 8)")
done
driver_domain "${disks[@]}"
# They start to run together, once all are there. As they do not run for long, their nodes are looked up before.
nodes=()
for letter in b c d e f g h i; do
    create_options=-p client "c$letter" "loglevel=info test=basic seed=1" "$(virtio_disk xvda xvd$letter access=rw)"
    nodes+=("/local/domain/$(xl domid "c$letter")/device/virtio_disk/51712/state")
done
for letter in b c d e f g h i; do
    xl unpause "c$letter"
done
connected() {
    [ "$(xenstore-read "${nodes[@]}" | tr -d '\n')" = 44444444 ]
}
wait_until 60 "all eight are connected at once" connected
same "the driver domain's memory" "$(xl list driver-domain | awk 'NR == 2 { print $3 }')" 16
for letter in b c d e f g h i; do
    client_passes "c$letter" 300
done
usage
