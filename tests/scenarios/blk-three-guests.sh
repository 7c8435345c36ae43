# Three guests use their disks at once.
# variants: pv@4.17 pvh@full
# timeout: 900
need image driver
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)" "vdev=xvdc,format=raw,access=rw,target=$(disk c 32)" \
    "vdev=xvdd,format=raw,access=rw,target=$(disk d 32)" "vdev=xvde,format=raw,access=rw,target=$(disk e 32)"
cat >script <<'G'
set -e
wait_for /dev/vda
fio_verify /dev/vda 16 2 4k-128k 2m
no_kernel_warnings
G
guest one "$variant" "$(virtio_disk xvda xvdb access=rw)" <script
guest two "$variant" "$(virtio_disk xvda xvdc access=rw)" <script
{
    cat script
    echo 'fio_verify /dev/vdb 4 1 4k-64k 1m'
} | guest three "$variant" "$(virtio_disk xvda xvdd access=rw)" "$(virtio_disk xvdb xvde access=rw)"
for name in one two three; do
    guest_ends $name 800
done
