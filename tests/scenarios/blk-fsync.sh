# What a guest has fsynced is in the backing file when the guest is destroyed in the next instant, and each fsync was a flush of the uplink.
# (The file is in RAM, where data can be seen before it is flushed.)
# variants: pv@4.20 pvh@4.17
# timeout: 300
need image driver
file=$(disk b 32)
driver_domain "vdev=xvdb,format=raw,access=rw,target=$file"
# How many requests to flush dom0's back end has had; 51728 is xvdb.
flushes() {
    cat "/sys/bus/xen-backend/devices/vbd-$(xl domid driver-domain)-51728/statistics/f_req"
}
before=$(flushes)
guest g "$variant" "$(virtio_disk xvda xvdb access=rw)" <<'G'
wait_for /dev/vda
for number in $(seq 0 4000); do
    printf '%-4096d' "$number" | dd of=/dev/vda bs=4096 seek="$number" conv=fsync,notrunc status=none || exit 1
    echo "fsynced $number"
done
G
wait_printed g 'fsynced 20' 200
xl destroy g
last=$(sed -n 's/^fsynced \([0-9]*\)\r*$/\1/p' "$(console g)" | tail -n 1)
echo "the last that was fsynced: $last"
flushed=$(($(flushes) - before))
echo "requests to flush: $flushed"
[ $flushed -gt "$last" ] || fail "the uplink is flushed $flushed times, for $((last + 1)) times that the guest has fsynced"
for number in $(seq 0 "$last"); do
    found=$(dd if="$file" bs=4096 skip="$number" count=1 status=none | tr -d ' \0')
    same "block $number" "$found" "$number"
done
