# An uplink is detached: at once if nobody uses it, and otherwise when its last client has gone. One that is attached in its place serves again.
# mostly: 4.17
# timeout: 300
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 16)"
back_end=/local/domain/0/backend/vbd/$(xl domid driver-domain)/51728 # xvdb
detached() {
    ! xenstore-exists "$back_end/state"
}
attach() {
    xl block-attach driver-domain "vdev=xvdb,format=raw,access=rw,target=/run/disks/b.img"
}
use() {
    client "$1" "loglevel=info test=basic" "$(virtio_disk xvda xvdb access=rw)"
    client_passes "$1" 100
}

use first
xl block-detach driver-domain xvdb
check "an idle uplink is detached" detached
! client stranger "test=basic" "$(virtio_disk xvda xvdb access=rw)" || fail "an uplink that is gone is given to a client"
attach
use second
# While it is in use, the toolstack waits, and would give up after 10 s.
client busy "loglevel=info test=stress seed=1 rounds=200" "$(virtio_disk xvda xvdb access=rw)"
connected() {
    [ "$(xenstore-read "/local/domain/$(xl domid busy)/device/virtio_disk/51712/state")" = 4 ]
}
wait_until 30 "the client is connected" connected
xl block-detach driver-domain xvdb || true
printed driver-domain 'to be detached, but in use' || fail "it does not say that the uplink is in use"
client_passes busy 150
wait_until 20 "the uplink is detached when its client has gone" detached
attach
use third
