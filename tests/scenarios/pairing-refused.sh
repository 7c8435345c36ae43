# A guest that names an unknown uplink, or one that has a writer already, is not created; the reason is in xenstore and in
# one line of the log. So it is with nodes that no libxl would write. Others are served as before.
# timeout: 240
need image client
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 32)" "vdev=xvdc,format=raw,access=rw,target=$(disk c 32)"

# How many errors the driver domain has logged.
errors() {
    grep -c ERROR "$(console driver-domain)" || true
}

# one_more LINES: whether there is another error since there were that many.
one_more() {
    [ $(($(errors) - $1)) -ge 1 ]
}

# logged_once LINES: the same for exactly one. It may come later than what xenstore says.
logged_once() {
    wait_until 5 "the reason is in the log" one_more "$1"
    same "lines in the log" "$(($(errors) - $1))" 1
}

refused() {
    local start=$SECONDS lines status=0
    lines=$(errors)
    client "$1" "test=basic" "$(virtio_disk xvda "$2" access=rw)" || status=$?
    [ $status != 0 ] || fail "$1 is created"
    [ $((SECONDS - start)) -lt 10 ] || fail "it takes $((SECONDS - start)) s to refuse $1"
    xenstore-ls "/local/domain/$(xl domid driver-domain)/error" | tee reasons
    grep -q "$2" reasons || fail "the reason is not in xenstore"
    logged_once "$lines"
}

# malformed NODE VALUE [REASON]: writes what libxl would for a disk of the guest "victim", but for one node, or without it if the value is
# empty. It is refused for this reason, by default the node's value.
devid=51712
malformed() {
    local guest server front back lines key error reason=${3:-$1=$2: expected}
    guest=$(xl domid victim) server=$(xl domid driver-domain) lines=$(errors)
    devid=$((devid + 16))
    front=/local/domain/$guest/device/virtio_disk/$devid back=/local/domain/$server/backend/virtio_disk/$guest/$devid
    error=/local/domain/$server/error/backend/virtio_disk/$guest/$devid/error
    local -A nodes=([frontend]=$front [frontend-id]=$guest [online]=1 [state]=1 [bootable]=1 [type]=virtio [transport]=mmio
        [specification]=virtio [params]=xvdc [mode]=w [discard-enable]=1)
    nodes[$1]=$2
    local written=()
    for key in "${!nodes[@]}"; do
        [ -z "${nodes[$key]}" ] || written+=("$back/$key" "${nodes[$key]}")
    done
    xenstore-write "$front" "" "$back" ""
    xenstore-chmod "$front" "n$guest" "r$server"
    xenstore-chmod "$back" "n$server" "r$guest"
    xenstore-write "$front/backend" "$back" "$front/backend-id" "$server" "$front/state" 1 "${written[@]}"
    wait_until 5 "a disk with $1=$2 is refused" xenstore-read "$error"
    [[ $(xenstore-read "$error") == *"$reason"* ]] || fail "the reason in xenstore is not '$reason': $(xenstore-read "$error")"
    # What makes libxl give up at once.
    wait_until 5 "the state goes" eval "! xenstore-exists $back/state"
    logged_once "$lines"
    grep ERROR "$(console driver-domain)" | tail -n 1 | grep -F "$reason" || fail "the reason is not in the log"
    xenstore-rm "$front" "$back"
}

refused stranger nosuch
create_options=-p client first "test=basic" "$(virtio_disk xvda xvdb access=rw)"
refused second xvdb
xl unpause first
client_passes first 120

create_options=-p client victim "test=basic"
client fourth "test=stress seed=1 rounds=1000000" "$(virtio_disk xvda xvdb access=rw)"
malformed params "no disk"
malformed params "" "params: missing"
malformed params nosuch
malformed mode rw
malformed mode "" "mode: missing"
malformed discard-enable yes
malformed frontend "/local/domain/0/device/virtio_disk/1"
malformed frontend-id 0
xl destroy victim
# Who was served all the while still is.
busy() {
    [ "$(statistic "disk/$(xl domid fourth)/51712" written-bytes)" -gt "${seen:-0}" ]
}
wait_until 30 "its requests are counted" busy
seen=$(statistic "disk/$(xl domid fourth)/51712" written-bytes)
wait_until 30 "it goes on" busy
xl destroy fourth
client third "test=basic" "$(virtio_disk xvda xvdb access=rw)"
client_passes third 60
