# The test client's random load, with all that the driver domain holds given back afterwards.
# mostly: 4.17
# timeout: 400
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 64)"
client first "loglevel=info test=stress seed=1 rounds=25" "$(virtio_disk xvda xvdb access=rw)"
client_passes first 200
at_rest before
client second "loglevel=info test=stress seed=2 rounds=25" "$(virtio_disk xvda xvdb access=rw)"
client_passes second 200
holds_as_before before
