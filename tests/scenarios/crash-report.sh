# A panic and a trap are reported with where, why and a backtrace; then the domain has crashed, and on_crash applies.
# mostly: 4.20
need client
crashed() {
    xl list "$1" | awk 'NR == 2 { exit $5 !~ /c/ }'
}
dies() {
    client "$1" "test=crash.$1" "vdev=xvda,format=raw,access=rw,target=$(disk "$1" 1)" >/dev/null
    wait_until 30 "$1 crashes, and is preserved" crashed "$1"
    printed "$1" "$2" || fail "$1 does not say '$2'"
    xl destroy "$1"
    printed "$1" 'backtrace:\( 0x[0-9a-f]*\)\{3,\}' || fail "$1 gives no backtrace"
}
dies panic 'panic at tests/client/src/crash.rs:.*: asked to panic'
dies page-fault 'page fault.*0x100000000000'
dies general-protection 'general protection'
dies invalid-opcode 'invalid opcode'

# An overflow of the stack ends the domain too, though only Xen can say so.
xl dmesg -c >/dev/null
client overflow "test=crash.stack-overflow" "vdev=xvda,format=raw,access=rw,target=$(disk overflow 1)" >/dev/null
wait_until 30 "it crashes" crashed overflow
xl dmesg | grep -i 'domain_crash\|crashed' || fail "Xen does not say that it crashed"
xl destroy overflow

# Where nobody reads the console, the report does not hold up on_crash.
create_options=-p client unread "test=crash.panic-unread" "vdev=xvda,format=raw,access=rw,target=$(disk unread 1)" >/dev/null
console_daemon=$(cat /run/xenconsoled.pid)
trap 'kill -CONT "$console_daemon"' EXIT
kill -STOP "$console_daemon"
xl unpause unread
wait_until 10 "it crashes" crashed unread
kill -CONT "$console_daemon"
xl destroy unread

# on_crash = restart gives it another domain id.
xl create -F $stubdom/xl/client.cfg "name='again'" "extra='test=crash.panic'" "disk=[]" "on_crash='restart'" &
xl=$!
again() {
    [ "$(cat /var/log/xen/console/guest-again.log* | grep -c 'asked to panic')" -ge 2 ]
}
wait_until 60 "it is started again" again
# It would be started again without end, and between two starts there is nothing to destroy. So xl goes first.
kill $xl
wait $xl || true
xl destroy again 2>/dev/null || true
