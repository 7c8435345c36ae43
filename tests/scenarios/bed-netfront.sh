# A stock guest on plain netfront: what the bed's network can do, and what the served network devices are compared with.
# mostly: 4.17
# timeout: 240
network_up
sum=$(served_file data 16)
guest g pv "vif:mac=00:16:3e:00:00:01,bridge=$bridge" <<G
set -e
nic=\$(wait_for_nic vif)
get_lease \$nic
ping -q -c 3 -i 0.2 10.77.0.1
wait_for_prefix \$nic
ping -q -c 3 -i 0.2 fd77::1
download http://files.bed/data $sum
curl --silent --output /tmp/data http://files.bed/data
upload /tmp/data http://files.bed/cgi-bin/upload $sum
iperf out --client 10.77.0.1 --time 3
iperf in --client 10.77.0.1 --time 3 --reverse
# The sweep from dom0 may go on still.
read -r _ </dev/console
no_kernel_warnings
G
address=$(lease g)
ping-sweep "$address" 28 1500
echo >"$(xenstore-read "/local/domain/$(xl domid g)/console/tty")"
guest_ends g 200
grep iperf "$(console g)"
