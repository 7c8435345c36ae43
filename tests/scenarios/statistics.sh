# What a disk and its uplink have done stands in xenstore, for as long as they exist.
# mostly: 4.17
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)"
client c "test=stress seed=1 rounds=1000000" "$(virtio_disk xvda xvdb access=rw)"
disk=disk/$(xl domid c)/51712
wait_until 40 "the disk's requests are counted" counted "$disk" reads writes read-bytes written-bytes kicks notifications
wait_until 20 "the uplink's bytes are counted" counted disk-uplink/xvdb requests bytes-read bytes-written connections pool-pages
counted domain grant-copy hypercalls
xenstore-ls "/local/domain/$(xl domid driver-domain)/data/statistics"
xl destroy c
uncounted() {
    ! statistic "$disk" reads
}
wait_until 30 "the node goes with the disk" uncounted
