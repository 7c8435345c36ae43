# The test client drives a disk through another implementation of the bus and of virtio-blk's driver side.
# timeout: 240
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 64)"
client c "loglevel=info test=basic seed=1" "$(virtio_disk xvda xvdb access=rw)"
client_passes c 200
