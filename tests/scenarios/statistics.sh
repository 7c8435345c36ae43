# What a disk and its uplink have done stands in xenstore, for as long as they exist.
# mostly: 4.17
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)"
client c "test=stress seed=1 rounds=1000000" "$(virtio_disk xvda xvdb access=rw)"
data=/local/domain/$(xl domid driver-domain)/data/statistics
disk=$data/disk/$(xl domid c)/51712
counted() {
    xenstore-read "$1" | grep -q "\\b$2=[1-9]"
}
wait_until 40 "the disk's reads are counted" counted "$disk" reads
wait_until 20 "the uplink's bytes are counted" counted "$data/disk-uplink/xvdb" bytes-written
counted "$data/domain" grant-copy
xenstore-ls "$data"
xl destroy c
uncounted() {
    ! xenstore-read "$disk"
}
wait_until 30 "the node goes with the disk" uncounted
