# Uplinks have names: by one with `ro`, clients may read, any number of them; by one that is shared, several write.
# mostly: 4.17
# timeout: 240
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 16)" "vdev=xvdc,format=raw,access=rw,target=$(disk c 16)" -- \
    disk.archive=xvdb,ro disk.cluster=xvdc,shared
for number in 1 2; do
    create_options=-p client "reader$number" "loglevel=info test=basic" "$(virtio_disk xvda archive access=rw)"
    create_options=-p client "writer$number" "loglevel=info test=basic" "$(virtio_disk xvda cluster access=rw)"
done
# Two that test at once would overwrite what the other reads.
xl destroy writer2
for name in reader1 reader2 writer1; do
    xl unpause $name
done
for name in reader1 reader2; do
    client_passes $name 100
    printed $name 'ok read-only' || fail "$name can write"
done
client_passes writer1 100
! printed writer1 'ok read-only' || fail "the shared disk is read-only"
