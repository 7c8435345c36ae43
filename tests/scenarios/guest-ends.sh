# A guest that reboots finds its disk again; one that crashes leaves it to the next.
# mostly: 4.20
# timeout: 500
need image driver client
file=$(disk b 32)
driver_domain "vdev=xvdb,format=raw,access=rw,target=$file"
client first "test=basic" "$(virtio_disk xvda xvdb access=rw)"
client_passes first 120
at_rest before
dd if=/dev/zero of="$file" bs=4096 count=1 conv=notrunc status=none
guest g pv "$(virtio_disk xvda xvdb access=rw)" "+on_reboot='restart'" "+on_crash='destroy'" <<'G'
set -e
wait_for /dev/vda
count=$(dd if=/dev/vda bs=1 count=1 status=none | tr -d '\0')
echo "boot ${count:-0}"
printf %s $((${count:-0} + 1)) | dd of=/dev/vda bs=4096 conv=fsync,sync,notrunc status=none
case ${count:-0} in
0) busybox reboot -f ;;
1) echo c >/proc/sysrq-trigger ;;
esac
sleep 60
G
wait_printed g 'boot 0' 120
# Between the two there is no domain of that name.
wait_until 180 "the guest boots again" printed g 'boot 1'
wait_until 60 "the guest that crashed is gone" gone g
client last "test=basic" "$(virtio_disk xvda xvdb access=rw)"
client_passes last 120
holds_as_before before
