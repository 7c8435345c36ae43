# A disk that is in use is unplugged: the guest lets go of it, and the driver domain keeps nothing of it. libxl has no
# command for it, so this does what libxl does for other disks.
# mostly: 4.17
# timeout: 240
need image driver client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)"
client c "test=basic" "$(virtio_disk xvda xvdb access=rw)"
client_passes c 120
at_rest before
guest g pv "$(virtio_disk xvda xvdb access=rw)" <<'G'
wait_for /dev/vda
echo reading
while dd if=/dev/vda of=/dev/null bs=64k iflag=direct status=none; do :; done
until [ ! -e /dev/vda ]; do sleep 0.1; done
echo unplugged
# The queues go after the disk.
for _ in $(seq 50); do
    grep -q virtio_disk /proc/interrupts || break
    sleep 0.1
done
[ -z "$(grep virtio_disk /proc/interrupts)" ]
G
wait_printed g reading 150
backend=/local/domain/$(xl domid driver-domain)/backend/virtio_disk/$(xl domid g)/51712
xenstore-write "$backend/online" 0 "$backend/state" 5
gone_backend() {
    ! xenstore-read "$backend/state"
}
wait_until 30 "the back end removes its directory" gone_backend
guest_ends g 60
holds_as_before before
