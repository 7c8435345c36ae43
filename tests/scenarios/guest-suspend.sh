# A guest goes on with its disk when it is checkpointed, and when it is saved and restored, while it writes.
# variants: pv@4.17 pvh@4.20
# timeout: 500
need image driver
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)"
guest g "$variant" "$(virtio_disk xvda xvdb access=rw)" +memory=256 <<'G'
set -e
wait_for /dev/vda
mkfs.ext4 -q /dev/vda
mount /dev/vda /mnt
for round in $(seq 1000); do
    head -c 1M /dev/urandom >/mnt/data
    sync -f /mnt
    echo 1 >/proc/sys/vm/drop_caches
    sha256sum /mnt/data >/run/sum
    sha256sum --quiet -c /run/sum
    echo "round $round"
    # Three rounds after the second freeze, which is that of the save, are enough.
    [ "$(dmesg | grep -c 'Freezing user space processes')" -lt 2 ] || : $((after += 1))
    [ "${after:-0}" -lt 3 ] || break
done
umount /mnt
e2fsck -f -n /dev/vda
no_kernel_warnings
G
rounds() {
    grep -c '^round' "$(console g)"
}
more_rounds() {
    [ "$(rounds)" -ge "$1" ]
}
wait_printed g '^round 2' 200
xl save -c g saved
wait_until 60 "the guest goes on after a checkpoint" more_rounds $(($(rounds) + 2))
xl save g saved
xl restore saved
rm saved
guest_ends g 200
