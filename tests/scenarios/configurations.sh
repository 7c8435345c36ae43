# The configurations of boot/xl, as they stand: the driver domains start and become ready, and the guests find their disk and network.
# mostly: 4.20
# timeout: 400
need image driver
network_up

# driver_domain_from CONFIGURATION PATTERN...: starts it, and waits until it is ready and has printed lines that match.
driver_domain_from() {
    local configuration=$1 pattern
    shift
    rm -f "$(console driver-domain)"
    xl create "$stubdom/xl/$configuration"
    for pattern in "ready to serve" "$@"; do
        wait_printed driver-domain "$pattern" 30
    done
    echo "$configuration: the driver domain is ready"
}

# say LINE: types it into the guest's shell, which its init starts where there is no script.
say() {
    echo "$1" >"$(xenstore-read "/local/domain/$(xl domid guest)/console/tty")"
}

# guest_from CONFIGURATION: starts it, and waits until it has its disk.
guest_from() {
    rm -f "$(console guest)"
    xl create "$stubdom/xl/$1"
    wait_printed guest 'a shell instead' 90
    say '. /etc/guest-lib; wait_for /dev/vda; lsblk --noheadings --output NAME,SIZE /dev/vda'
    wait_printed guest 'vda  *1G' 60
    echo "$1: the guest has its disk"
}

# The guest powers off, and the driver domain goes.
guest_leaves() {
    say 'no_kernel_warnings && exit'
    wait_until 60 "the guest powers off" gone guest
    xl destroy driver-domain
}

driver_domain_from driver-domain.cfg 'uplink xvdb is connected'
guest_from guest.cfg
guest_leaves

driver_domain_from disk-and-network.cfg 'uplink xvdb is connected' 'vif0: the line is up'
if makes_virtio; then
    guest_from guest-network.cfg
    # shellcheck disable=SC2016
    say 'get_lease $(wait_for_nic virtio_net)'
    wait_printed guest 'lease .* 10\.77\.0\.' 60
    echo "guest-network.cfg: the guest has its lease"
    guest_leaves
else
    xl destroy driver-domain
fi

driver_domain_from bridged.cfg 'vif0: the line is up'
xl destroy driver-domain
driver_domain_from nat.cfg 'vif0: the line is up'
xl destroy driver-domain
driver_domain_from isolated.cfg
