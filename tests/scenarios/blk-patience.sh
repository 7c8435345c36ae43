# An uplink's back end goes away with requests that it has not answered. They fail when patience says so, even though the back end keeps
# their pages for longer; and the next back end is asked again.
# mostly: 4.20
# timeout: 400
need image driver
# A disk that takes 8 s for everything.
modprobe null_blk nr_devices=1 gb=1 irqmode=2 completion_nsec=8000000000
driver_domain "vdev=xvdb,format=raw,access=rw,target=/dev/nullb0" -- patience=1
guest g pv "$(virtio_disk xvda xvdb access=rw)" <<'G'
wait_for /dev/vda
for back_end in away back; do
    echo "reading while the back end is $back_end"
    start=$(cut -d. -f1 /proc/uptime)
    status=0
    dd if=/dev/vda of=/dev/null bs=4096 count=1 iflag=direct || status=$?
    took=$(($(cut -d. -f1 /proc/uptime) - start))
    echo "status $status after $took s"
    case $back_end in
    away) [ $status != 0 ] && [ $took -lt 6 ] || exit 1 ;;
    back) [ $took -ge 7 ] || exit 1 ;;
    esac
    sleep 15
done
G
device=vbd-$(xl domid driver-domain)-51728 # xvdb
back_end=/sys/bus/xen-backend/drivers/vbd
wait_printed g 'reading while .* away' 200
sleep 1
echo "$device" >$back_end/unbind
wait_printed g '^status' 60
printed driver-domain 'still has pages of ours' || fail "the back end had let go of everything"
echo "$device" >$back_end/bind
guest_ends g 200
