# A guest makes an ext4 file system on a served disk and unpacks a tree; dom0 finds it whole in the backing file.
# variants: pv@4.17 pvh@4.20
# timeout: 400
need image driver
file=$(disk b 96)
driver_domain "vdev=xvdb,format=raw,access=rw,target=$file"
guest g "$variant" "$(virtio_disk xvda xvdb access=rw)" <<'G'
set -e
wait_for /dev/vda
mkfs.ext4 -q /dev/vda
mount /dev/vda /mnt
tar -C /usr/lib -cf - modules | tar -C /mnt -xf -
(cd /mnt && find modules -type f -exec sha256sum {} +) >/run/sums
cp /run/sums /mnt/sums
sync
umount /mnt
e2fsck -f -n /dev/vda
no_kernel_warnings
G
guest_ends g 300
e2fsck -f -n "$file"
mount_image "$file"
[ "$(wc -l </mnt/sums)" -gt 10 ] || fail "the tree is not there"
(cd /mnt && sha256sum --quiet -c sums) || fail "files differ"
