# A guest that has lost its disk's back end, and requests with it, is checkpointed all the same.
# mostly: 4.20
# timeout: 300
need image driver
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)"
guest g pv "$(virtio_disk xvda xvdb access=rw)" +memory=256 <<'G'
wait_for /dev/vda
# The kernel writes at once what the guest leaves in the page cache, and nobody waits for it: the disk stays open.
echo 1 >/proc/sys/vm/dirty_writeback_centisecs
echo 1 >/proc/sys/vm/dirty_expire_centisecs
exec 3<>/dev/vda
while sleep 0.1; do
    dd if=/dev/zero of=/dev/vda bs=1M count=2 conv=notrunc status=none
    echo "round $((round += 1))"
done
G
rounds() {
    grep -c '^round' "$(console g)"
}
more_rounds() {
    [ "$(rounds)" -ge "$1" ]
}
wait_printed g '^round 5' 150
xl destroy driver-domain
wait_printed g 'the device is given up' 30
for _ in 1 2; do
    timeout 60 xl save -c g saved || fail "the guest is not saved"
    wait_until 60 "the guest goes on" more_rounds $(($(rounds) + 5))
done
xl destroy g
