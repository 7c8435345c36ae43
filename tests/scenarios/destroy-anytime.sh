# Clients that are destroyed at any moment leave nothing behind in the driver domain.
# mostly: 4.17
# timeout: 400
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)"
client first "test=basic" "$(virtio_disk xvda xvdb access=rw)"
client_passes first 120
client second "test=stress seed=7 rounds=10" "$(virtio_disk xvda xvdb access=rw)"
client_passes second 120
at_rest before
for delay in 0 0.1 0.2 0.4 0.8 1.6 3; do
    client c "test=stress seed=7 rounds=1000000" "$(virtio_disk xvda xvdb access=rw)"
    sleep $delay
    xl destroy c
done

# What a client had is free for the next as soon as its device is closed, while the directory of the device still stands.
server=$(xl domid driver-domain)
back_end() { # DOMID
    echo "/local/domain/$server/backend/virtio_disk/$1/51712"
}
state() { # DOMID
    xenstore-read "$(back_end "$1")/state" 2>/dev/null
}
absent() { # DOMID
    ! state "$1"
}
left_initialising() { # DOMID
    [ "$(state "$1")" != 1 ]
}
# The next one's device, as libxl makes it, but for the state that makes it one.
create_options=-p client next "test=basic"
next=$(xl domid next)
front=/local/domain/$next/device/virtio_disk/51712
xenstore-write "$front/state" 1
xenstore-chmod -r "$front" "n$next" "r$server"
back=$(back_end "$next")
xenstore-write "$back/frontend" "$front" "$back/frontend-id" "$next" "$back/params" xvdb "$back/mode" w "$back/online" 1
xenstore-chmod -r "${back%/*}" "n$server" "r$next"
client c "test=stress seed=7 rounds=1000000" "$(virtio_disk xvda xvdb access=rw)"
last=$(xl domid c)
sleep 1
xl destroy c &
until [ "$(state "$last")" = 6 ]; do
    [ "$(state "$last")" ] || fail "the last client's device goes without a word"
done
xenstore-write "$back/state" 1
wait_until 10 "the next client's device is looked at" left_initialising "$next"
same "state of the next client's device" "$(state "$next")" 2
wait
xenstore-write "$back/online" 0 "$back/state" 5
xl destroy next
wait_until 10 "the next client's device is gone" absent "$next"

client last "test=basic" "$(virtio_disk xvda xvdb access=rw)"
client_passes last 120
holds_as_before before
