# The test client's random load, with all that the driver domain holds given back afterwards.
# mostly: 4.17
# timeout: 400
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 64)"
client c "loglevel=info test=stress seed=1" "$(virtio_disk xvda xvdb access=rw)"
client_passes c 360
