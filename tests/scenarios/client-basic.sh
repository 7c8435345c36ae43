# The test client drives a disk through another implementation of the bus and of virtio-blk's driver side.
# timeout: 240
# variants: fifo 2-level@4.17
need image client
words=
[ "$variant" = fifo ] || words=evtchn=2l
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 64)" -- $words
client c "loglevel=info test=basic seed=1 $words" "$(virtio_disk xvda xvdb access=rw)"
client_passes c 200
for domain in driver-domain c; do
    if [ "$variant" = fifo ]; then
        ! printed "$domain" "2-level event channels" || fail "$domain does not use the FIFO ABI"
    else
        printed "$domain" "2-level event channels, as asked for" || fail "$domain does not use the 2-level ABI"
    fi
done
