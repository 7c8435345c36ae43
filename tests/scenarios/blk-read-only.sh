# A disk that is read-only by the guest's configuration, and one by its uplink's, can be read and cannot be written.
# mostly: 4.20
# timeout: 240
need image driver
for name in b c; do
    disk $name 16
    printf 'hello %s' $name | dd of=/run/disks/$name.img conv=notrunc status=none
done
sum=$(cat /run/disks/*.img | sha256sum)
driver_domain "vdev=xvdb,format=raw,access=rw,target=/run/disks/b.img" "vdev=xvdc,format=raw,access=ro,target=/run/disks/c.img"
guest g pv "$(virtio_disk xvda xvdb access=ro)" "$(virtio_disk xvdb xvdc access=ro)" <<'G'
set -e
wait_for /dev/vda
wait_for /dev/vdb
for disk in vda vdb; do
    [ "$(cat /sys/block/$disk/ro)" = 1 ]
    echo "$disk: $(dd if=/dev/$disk bs=7 count=1 iflag=fullblock status=none)"
    if dd if=/dev/zero of=/dev/$disk bs=4096 count=1 oflag=direct status=none; then exit 1; fi
done
G
guest_ends g 180
printed g 'vda: hello b' || fail "vda is not the first uplink"
printed g 'vdb: hello c' || fail "vdb is not the second uplink"
same "the disks' content" "$(cat /run/disks/*.img | sha256sum)" "$sum"
