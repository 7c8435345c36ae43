# What a disk request costs: the same Linux guest, the same fio jobs, the same ramdisk in dom0; once on plain blkfront, once through the
# driver domain. Run by `cargo xtask bench`, under icount. Prints, and keeps in bench.results beside the consoles, lines of the form
#     result TYPE PATH JOB KEY=VALUE...
# with TYPE pv or pvh, PATH blkfront or virtio. CPU times are seconds of the domains' own, as Xen accounts for them.

. /srv/bed/lib.sh
touch /run/measuring # so that nobody copies logs meanwhile

size=64 # MiB
types=${types:-"pv pvh"}
# JOB RW BLOCK-SIZE DEPTH REQUESTS
jobs="randread-4k-1 randread 4k 1 3000
randread-4k-32 randread 4k 32 12000
randwrite-4k-32 randwrite 4k 32 12000
read-128k-4 read 128k 4 1500
write-128k-4 write 128k 4 1500"

modprobe brd rd_nr=2 rd_size=$((size * 1024))
# Every page of the ramdisks is there before anything is measured.
dd if=/dev/zero of=/dev/ram0 bs=1M count=$size status=none
dd if=/dev/zero of=/dev/ram1 bs=1M count=$size status=none

# measure TYPE PATH DEVICE DISK-LINE
measure() {
    local type=$1 path=$2 device=$3 line=$4 name=bench-$1-$2 step=0
    guest "$name" "$type" "$line" <<G
wait_for $device
echo "$jobs" | while read -r job rw bs depth requests; do
    echo "ready \$job"
    read -r _ </dev/console
    fio --name=\$job --filename=$device --rw=\$rw --bs=\$bs --iodepth=\$depth --number_ios=\$requests --size=${size}m \\
        --io_size=100g --ioengine=libaio --direct=1 --randrepeat=1 --norandommap --output-format=terse --terse-version=3 |
        awk -F';' -v job=\$job '{ print "done", job, "iops=" \$8 + \$49, "kib_s=" \$7 + \$48, "errors=" \$5 }'
    read -r _ </dev/console
done
G
    local tty
    tty=$(xenstore-read "/local/domain/$(xl domid "$name")/console/tty")
    echo "$jobs" | while read -r job _ _ _ requests; do
        wait_printed "$name" "^ready $job" 120
        [ "$path" = blkfront ] || counters >before
        local dom0 server own
        dom0=$(cpu Domain-0) server=$(cpu driver-domain) own=$(cpu "$name")
        echo >"$tty"
        wait_printed "$name" "^done $job" 300
        dom0=$(($(cpu Domain-0) - dom0)) server=$(($(cpu driver-domain) - server)) own=$(($(cpu "$name") - own))
        local cost=
        if [ "$path" != blkfront ]; then
            counters >after
            # Per request, in thousandths.
            cost=$(awk -F= -v n="$requests" 'NR == FNR { old[$1] = $2; next }
                { printf " %s=%.3f", $1, ($2 - old[$1]) / n }' before after)
        fi
        echo "result $type $path $job requests=$requests $(grep "^done $job" "$(console "$name")" | cut -d' ' -f3- | tr -d '\r')" \
            "cpu_dom0_ms=$dom0 cpu_dd_ms=$server cpu_guest_ms=$own$cost" | tee -a /var/log/xen/bench.results
        echo >"$tty"
    done
    guest_ends "$name" 60
}

driver_domain "vdev=xvdb,format=raw,access=rw,target=/dev/ram0"
for type in $types; do
    measure "$type" blkfront /dev/xvda "vdev=xvda,format=raw,access=rw,target=/dev/ram1"
    measure "$type" virtio /dev/vda "$(virtio_disk xvda xvdb access=rw)"
done
