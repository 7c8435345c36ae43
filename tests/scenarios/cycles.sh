# Fifty clients, one after another: the last leaves the driver domain with what the first left it.
# mostly: 4.17
# timeout: 900
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)"
for number in $(seq 50); do
    client "c$number" "test=stress seed=1 rounds=2" "$(virtio_disk xvda xvdb access=rw)" >/dev/null
    client_passes "c$number" 60
    [ "$number" != 1 ] || usage >first
done
usage >last
cat first last
same "what the driver domain holds" "$(cat last)" "$(cat first)"
