# What a packet and a segment cost: the same Linux guest, the same traffic with dom0; once on plain netfront, once through the driver domain. Run
# by `cargo xtask bench`, under icount. Prints, and keeps in bench-net.results beside the consoles, lines of the form
#     result TYPE PATH JOB KEY=VALUE...
# with TYPE pv or pvh, PATH netfront or virtio. `requests` are 64 KiB of TCP payload, UDP packets, or echoes; what the driver domain
# counts is told for each of them. CPU times are seconds of the domains' own, as Xen accounts for them.

. /srv/bed/lib.sh
touch /run/measuring # so that nobody copies logs meanwhile

types=${types:-"pv pvh"}
# JOB OPTION...: iperf3's options, or ping's. UDP goes so slowly that hardly any gets lost.
jobs="tcp-out --time 4
tcp-in --time 4 --reverse
udp-out-64 --udp --length 64 --bitrate 2M --time 4
udp-in-64 --udp --length 64 --bitrate 2M --time 4 --reverse
udp-out-1400 --udp --length 1400 --bitrate 40M --time 4
udp-in-1400 --udp --length 1400 --bitrate 40M --time 4 --reverse
ping -c 500 -i 0.005"

# measure TYPE PATH DRIVER NIC-LINE
measure() {
    local type=$1 path=$2 driver=$3 line=$4 name=bench-$1-$2
    guest "$name" "$type" "$line" <<G
nic=\$(wait_for_nic $driver)
get_lease \$nic
echo "$jobs" | while read -r job options; do
    echo "ready \$job"
    read -r _ </dev/console
    case \$job in
    ping)
        ping -q \$options 10.77.0.1 | awk -F'[ /]' '/received/ { sent = \$1; lost = \$1 - \$4 }
            /^rtt/ { print "done ping requests=" sent, "rtt_us=" \$8 * 1000, "lost=" lost }'
        ;;
    *)
        iperf3 --client 10.77.0.1 --format m \$options >/run/iperf || cat /run/iperf
        # What arrived: Mbit/s, and MB in pieces of 64 KiB, or of UDP the packets, of those that were sent.
        awk -v job=\$job '/receiver\$/ {
            for (i = 1; i < NF; i++) {
                if (\$i == "Mbits/sec") rate = \$(i - 1)
                if (\$i == "MBytes") requests = \$(i - 1) * 16
                if (\$i ~ /^[0-9]+\/[0-9]+\$/) split(\$i, packets, "/")
            }
            split(\$3, time, "-")
            if (packets[2]) requests = packets[2]
            printf "done %s requests=%d mbit_s=%s", job, requests, rate
            if (packets[2]) printf " packets_s=%.0f lost=%d", (packets[2] - packets[1]) / time[2], packets[1]
            print ""
        }' /run/iperf
        ;;
    esac
    read -r _ </dev/console
done
G
    local tty
    tty=$(xenstore-read "/local/domain/$(xl domid "$name")/console/tty")
    echo "$jobs" | while read -r job _; do
        wait_printed "$name" "^ready $job" 200
        [ "$path" = netfront ] || counters >before
        local dom0 server own
        dom0=$(cpu Domain-0) server=$(cpu driver-domain) own=$(cpu "$name")
        echo >"$tty"
        wait_printed "$name" "^done $job" 300
        dom0=$(($(cpu Domain-0) - dom0)) server=$(($(cpu driver-domain) - server)) own=$(($(cpu "$name") - own))
        local cost= requests
        requests=$(sed -n "s/^done $job requests=\([0-9]*\).*/\1/p" "$(console "$name")")
        if [ "$path" != netfront ]; then
            counters >after
            cost=$(awk -F= -v n="$requests" 'NR == FNR { old[$1] = $2; next }
                { printf " %s=%.3f", $1, ($2 - old[$1]) / n }' before after)
        fi
        echo "result $type $path $job $(grep "^done $job" "$(console "$name")" | cut -d' ' -f3- | tr -d '\r')" \
            "cpu_dom0_ms=$dom0 cpu_dd_ms=$server cpu_guest_ms=$own$cost" | tee -a /var/log/xen/bench-net.results
        echo >"$tty"
    done
    guest_ends "$name" 60
}

network_up
if [ -e $stubdom/image ]; then
    driver_domain "vif:mac=00:16:3e:00:00:01,bridge=$bridge" +memory=32 -- segment.lan=uplink=vif0
fi
for type in $types; do
    measure "$type" netfront vif "vif:bridge=$bridge"
    [ "${only:-}" = netfront ] || measure "$type" virtio virtio_net "$(virtio_nic)"
done
