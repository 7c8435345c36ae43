# Fifty clients, one after another, every other one destroyed at some moment: the last leaves the driver domain with what the first ones left it.
# mostly: 4.17
# timeout: 900
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)"
for number in $(seq 50); do
    if [ $((number % 2)) = 0 ]; then
        client "c$number" "test=stress seed=1 rounds=1000000" "$(virtio_disk xvda xvdb access=rw)" >/dev/null
        sleep "0.$((number % 10))"
        xl destroy "c$number"
    else
        client "c$number" "test=stress seed=1 rounds=2" "$(virtio_disk xvda xvdb access=rw)" >/dev/null
        client_passes "c$number" 60
    fi
    [ "$number" != 4 ] || at_rest first
done
holds_as_before first
