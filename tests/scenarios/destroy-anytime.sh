# Clients that are destroyed at any moment leave nothing behind in the driver domain.
# mostly: 4.17
# timeout: 400
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)"
client c "test=basic" "$(virtio_disk xvda xvdb access=rw)"
client_passes c 120
usage >before
for delay in 0 0.1 0.2 0.4 0.8 1.6 3; do
    client c "test=stress seed=7 rounds=1000000" "$(virtio_disk xvda xvdb access=rw)"
    sleep $delay
    xl destroy c
done
client c "test=basic" "$(virtio_disk xvda xvdb access=rw)"
client_passes c 120
usage >after
cat before after
same "what the driver domain holds" "$(cat after)" "$(cat before)"
