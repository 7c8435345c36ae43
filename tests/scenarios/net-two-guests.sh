# Two guests, PV and PVH, send to each other through the driver domain while both download.
# mostly: 4.20
# timeout: 400
need image driver
network_up
sum=$(served_file data 16)
driver_domain "vif:mac=00:16:3e:00:00:01,bridge=$bridge" +memory=32 -- segment.lan=uplink=vif0
cat >script <<G
set -e
nic=\$(wait_for_nic virtio_net)
ip addr add 10.77.0.\$own/24 dev \$nic
ip link set \$nic up
[ \$own != 11 ] || iperf3 --server --daemon
until ping -q -c 1 -W 1 10.77.0.\$other >/dev/null; do :; done
download http://10.77.0.1/data $sum &
[ \$own != 12 ] || iperf "between guests" --client 10.77.0.\$other --time 4
[ \$own != 12 ] || iperf "between guests, back" --client 10.77.0.\$other --time 4 --reverse
wait %1
# The other one may still need this one.
[ \$own != 11 ] || read -r _ </dev/console
no_kernel_warnings
G
{
    echo own=11 other=12
    cat script
} | guest one pv "$(virtio_nic)"
{
    echo own=12 other=11
    cat script
} | guest two pvh "$(virtio_nic)"
guest_ends two 300
echo >"$(xenstore-read "/local/domain/$(xl domid one)/console/tty")"
guest_ends one 60
grep iperf "$(console two)"
