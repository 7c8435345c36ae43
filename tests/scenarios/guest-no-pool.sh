# Without a pool, buffers that share their pages with something else still arrive whole, and the rest of the pages unharmed.
# variants: pv@4.17 pvh@4.20
# timeout: 400
need image driver
file=$(disk b 64)
driver_domain "vdev=xvdb,format=raw,access=rw,target=$file"
guest g "$variant" "$(virtio_disk xvda xvdb access=rw)" <<'G'
set -e
wait_for /dev/vda
device=$(echo /sys/bus/xen/devices/virtio_disk-*)
basename "$device" >"$device/driver/unbind"
rmmod virtio_msg_xen
modprobe virtio_msg_xen pool_pages=0
wait_for /dev/vda
# Parts of one page, of two, and of one at either end of whole ones.
for align in 512 1536 2560; do
    fio --name=unaligned --filename=/dev/vda --direct=1 --ioengine=libaio --iomem_align=$align --rw=randwrite \
        --iodepth=8 --bsrange=512-40k --blockalign=512 --size=1m --verify=crc32c --verify_fatal=1 --eta=never --output=/run/fio ||
        { cat /run/fio; false; }
done
fio_verify /dev/vda 16 2 512-64k 1m
mkfs.ext4 -q -b 1024 /dev/vda
mount /dev/vda /mnt
tar -C /usr/lib -cf - modules | tar -C /mnt -xf -
echo 1 >/proc/sys/vm/drop_caches
diff -r /usr/lib/modules /mnt/modules
umount /mnt
e2fsck -f -n /dev/vda
no_kernel_warnings
G
guest_ends g 300
