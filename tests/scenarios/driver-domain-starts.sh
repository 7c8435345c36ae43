# The image boots as a small PV domain, says when it is ready, and ends when it is asked to.
need image
[ "$(stat -L -c %s "$stubdom/image")" -lt 1048576 ] || fail "the image has 1 MiB or more"
driver_domain "vdev=xvdb,format=raw,access=rw,target=$(disk b 64)"
same "the domain's memory" "$(xl list driver-domain | awk 'NR == 2 { print $3 }')" 16
grep -o 'ready to serve.*' "$(console driver-domain)"
cpu_time=$(sed -n 's/.*ready to serve after \([0-9]*\) µs.*/\1/p' "$(console driver-domain)")
[ "$cpu_time" -lt 100000 ] || fail "it takes $cpu_time µs of CPU time to be ready, not less than 100000"
usage
xl shutdown -w driver-domain
