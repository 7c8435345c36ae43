# One driver domain serves a guest's disk and its network at once.
# timeout: 300
need image driver
network_up
sum=$(served_file data 16)
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 64)" "vif:mac=00:16:3e:00:00:01,bridge=$bridge" +memory=48 -- \
    segment.lan=uplink=vif0
guest g pv "$(virtio_disk xvda xvdb access=rw)" "$(virtio_nic)" +memory=512 <<G
set -e
wait_for /dev/vda
nic=\$(wait_for_nic virtio_net)
get_lease \$nic
fio_verify /dev/vda 16 1 4k-128k 8m &
download http://files.bed/data $sum
wait %1
# From the network to the disk and back.
mkfs.ext4 -q /dev/vda
mount /dev/vda /mnt
curl --silent --show-error --fail --output /mnt/data http://files.bed/data
umount /mnt
mount -o ro /dev/vda /mnt
upload /mnt/data http://files.bed/cgi-bin/upload $sum
no_kernel_warnings
G
guest_ends g 260
