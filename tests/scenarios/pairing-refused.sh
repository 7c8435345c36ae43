# A guest that names an unknown uplink, or one that has a writer already, is not created; the reason is in xenstore and in
# one line of the log. Others are served as before.
# timeout: 240
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)"

refused() {
    local start=$SECONDS lines status=0
    lines=$(grep -c ERROR "$(console driver-domain)" || true)
    client "$1" "test=basic" "$(virtio_disk xvda "$2" access=rw)" || status=$?
    [ $status != 0 ] || fail "$1 is created"
    [ $((SECONDS - start)) -lt 10 ] || fail "it takes $((SECONDS - start)) s to refuse $1"
    xenstore-ls "/local/domain/$(xl domid driver-domain)/error" | tee reasons
    grep -q "$2" reasons || fail "the reason is not in xenstore"
    same "lines in the log" "$(($(grep -c ERROR "$(console driver-domain)") - lines))" 1
}

refused stranger nosuch
create_options=-p client first "test=basic" "$(virtio_disk xvda xvdb access=rw)"
refused second xvdb
xl unpause first
client_passes first 120
client third "test=basic" "$(virtio_disk xvda xvdb access=rw)"
client_passes third 60
