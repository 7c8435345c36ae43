# A client that breaks every rule of the protocol harms nobody but itself.
# mostly: 4.20
# timeout: 500
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)" "vdev=xvdc,format=raw,access=rw,target=$(disk c 32)"
client bad "loglevel=info test=hostile seed=1" "$(virtio_disk xvda xvdb access=rw)"
client good "loglevel=info test=stress seed=2" "$(virtio_disk xvda xvdc access=rw)"
client_passes good 240
client_passes bad 240
client after "loglevel=info test=basic seed=3" "$(virtio_disk xvda xvdb access=rw)"
client_passes after 120
