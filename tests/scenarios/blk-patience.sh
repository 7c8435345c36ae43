# Requests that a back end holds when it goes away fail when patience says so, though it keeps their pages for longer; the next back end
# serves again, and what was acknowledged is there.
# mostly: 4.20
# timeout: 400
need image driver
mkfs.ext4 -q "$(disk host 64)"
mkdir -p /mnt
mount -o loop /run/disks/host.img /mnt
fallocate -l 32M /mnt/disk.img
driver_domain "vdev=xvdb,format=raw,access=rw,target=/mnt/disk.img" -- patience=2
guest g pv "$(virtio_disk xvda xvdb access=rw)" <<'G'
set -e
wait_for /dev/vda
seconds() {
    cut -d. -f1 /proc/uptime
}
number=0
echo writing
while start=$(seconds) && printf '%-4096d' "$number" | dd of=/dev/vda iflag=fullblock oflag=direct bs=4k status=none; do
    acknowledged=$number
    number=$((number + 1))
    sleep 0.1
done
echo "failed after $(($(seconds) - start)) s"
until content=$(dd if=/dev/vda iflag=direct bs=4k count=1 status=none); do
    sleep 0.1
done
echo "$acknowledged was acknowledged; $(($content)) is there"
# What failed may have arrived all the same.
[ $(($content)) = "$acknowledged" ] || [ $(($content)) = "$number" ]
fio_verify /dev/vda 8 1 4k-64k 2m
G
device=vbd-$(xl domid driver-domain)-51728 # xvdb
back_end=/sys/bus/xen-backend/drivers/vbd
wait_printed g '^writing' 200
sleep 2
# From here on, nothing that the back end writes comes to an end.
fsfreeze --freeze /mnt
sleep 1
# Its successor says that it is gone.
echo "$device" >$back_end/unbind
echo "$device" >$back_end/bind
wait_printed g '^failed after' 30
printed g '^failed after [2-7] s' || fail "the request did not fail after patience: $(grep '^failed' "$(console g)")"
printed driver-domain 'still has pages of ours' || fail "the back end has let go of everything"
fsfreeze --unfreeze /mnt
guest_ends g 200
