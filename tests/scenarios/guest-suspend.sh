# A guest goes on with its disk and its network when it is checkpointed, and when it is saved and restored, while it uses them.
# variants: pv@4.20 pvh@4.17
# timeout: 500
need image driver
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)" +memory=32 -- segment.lab=address=10.1.0.1/24,dhcp=10.1.0.100-10.1.0.199
guest g "$variant" "$(virtio_disk xvda xvdb access=rw)" "$(virtio_nic)" +memory=256 <<'G'
set -e
wait_for /dev/vda
get_lease "$(wait_for_nic virtio_net)"
# Whether an echo comes back; what was sent while the guest was away may be lost.
reaches_gateway() {
    for _ in $(seq 20); do
        ! ping -q -c 1 -W 1 10.1.0.1 >/dev/null || return 0
    done
    return 1
}
mkfs.ext4 -q /dev/vda
mount /dev/vda /mnt
for round in $(seq 1000); do
    head -c 1M /dev/urandom >/mnt/data
    sync -f /mnt
    echo 1 >/proc/sys/vm/drop_caches
    sha256sum /mnt/data >/run/sum
    sha256sum --quiet -c /run/sum
    reaches_gateway
    echo "round $round"
    # Three rounds after the second freeze, which is that of the save, are enough.
    [ "$(freezes)" -lt 2 ] || : $((after += 1))
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
if makes_virtio; then
    xl restore saved
else
    # That libxl does not know of the network device.
    xl restore -p saved
    "$stubdom/xl/virtio-net-attach" g driver-domain
    xl unpause g
fi
rm saved
guest_ends g 200
