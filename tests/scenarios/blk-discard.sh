# What a guest discards is given back by the backing file, and zeroes that it asks for are zeroes.
# mostly: 4.17
# timeout: 240
need image driver
file=$(disk b 32)
head -c 32M /dev/zero | tr '\0' x >"$file"
driver_domain "vdev=xvdb,format=raw,access=rw,target=$file"
before=$(du --block-size=1M "$file" | cut -f1)
guest g pv "$(virtio_disk xvda xvdb access=rw discard)" <<'G'
set -e
wait_for /dev/vda
blkdiscard --offset 8M --length 16M /dev/vda
blkdiscard --zeroout --offset 1M --length 1M /dev/vda
# What cannot be read is neither.
[ "$(dd if=/dev/vda bs=1M skip=1 count=1 iflag=direct status=none | tr -cd '\0' | wc -c)" = 1048576 ]
[ "$(dd if=/dev/vda bs=1M count=1 iflag=direct status=none | tr -cd x | wc -c)" = 1048576 ]
no_kernel_warnings
G
guest_ends g 180
after=$(du --block-size=1M "$file" | cut -f1)
echo "MiB in use: $before before, $after after"
[ $((before - after)) -ge 15 ] || fail "discarding frees $((before - after)) MiB of 16"
