# A client that breaks every rule of the protocol harms nobody but itself.
# mostly: 4.20
# timeout: 500
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)" "vdev=xvdc,format=raw,access=rw,target=$(disk c 32)"
client bad "loglevel=info test=hostile seed=1" "$(virtio_disk xvda xvdb access=rw)"
client good "loglevel=info test=stress seed=2" "$(virtio_disk xvda xvdc access=rw)"
client_passes good 240
client_passes bad 240
client after "loglevel=info test=basic seed=3" "$(virtio_disk xvda xvdb access=rw)"
client_passes after 120
# However often it had its device served anew, the log is not full of it: a few lines, and one more every 5 seconds.
client again "loglevel=info test=hostile.state-taken-away seed=1" "$(virtio_disk xvda xvdb access=rw)"
device="backend/virtio_disk/$(xl domid again)/51712"
start=$SECONDS
client_passes again 120
lines=$(grep -c "$device" "$(console driver-domain)")
most=$((5 + (SECONDS - start) / 5 + 2))
echo "lines in the log about it: $lines, at most $most"
[ "$lines" -gt 0 ] && [ "$lines" -le $most ] || fail "$lines lines in the log about a client that comes back without end"
