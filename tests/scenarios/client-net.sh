# The test client drives network devices through another implementation of the bus and of virtio-net's driver side; one in bad faith and one
# that floods harm nobody but themselves.
# timeout: 500
need image client
driver_domain +memory=32 -- segment.lab=address=10.1.0.1/24,dhcp=10.1.0.100-10.1.0.199,metrics=9100
# A flood before, too: queues keep the memory for the most that was ever in them. That is not the same each time, so that this finds only
# larger leaks; net-cycles finds small ones.
heap_slack=16384
client early "loglevel=info test=net-flood seed=1 seconds=5" "$(virtio_nic spoof=1)"
client first "loglevel=info test=net seed=1" "$(virtio_nic)"
client_passes first 200
client_passes early 100
at_rest before
client bad "loglevel=info test=net-hostile seed=1" "$(virtio_nic queues=4)"
client_passes bad 300
client flood "loglevel=info test=net-flood seed=1 seconds=30" "$(virtio_nic spoof=1)"
client good "loglevel=info test=net seed=1" "$(virtio_nic)"
client_passes good 200
client_passes flood 100
holds_as_before before
