# A guest sees its disk grow when the uplink's backing device does.
# mostly: 4.20
# timeout: 240
need image driver
file=$(disk b 32)
loop=$(losetup --show --find "$file")
driver_domain "vdev=xvdb,format=raw,access=rw,target=$loop"
guest g pv "$(virtio_disk xvda xvdb access=rw)" <<'G'
wait_for /dev/vda
echo "size $(blockdev --getsize64 /dev/vda)"
for _ in $(seq 300); do
    # blkback looks at its device's size when it has a request.
    dd if=/dev/vda of=/dev/null bs=4096 count=1 iflag=direct status=none
    [ "$(blockdev --getsize64 /dev/vda)" = $((48 << 20)) ] && break
    sleep 0.1
done
set -e
echo "size $(blockdev --getsize64 /dev/vda)"
printf 'at the end' | dd of=/dev/vda bs=4096 seek=$(((48 << 8) - 1)) conv=fsync status=none
no_kernel_warnings
G
wait_printed g "size $((32 << 20))" 150
truncate -s 48M "$file"
losetup --set-capacity "$loop"
guest_ends g 90
printed g "size $((48 << 20))" || fail "the disk does not grow"
same "the last block" "$(tail -c 4096 "$file" | tr -d '\0')" "at the end"
