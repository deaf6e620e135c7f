#!/bin/bash
# The stages of a throw-away machine with a kernel of its own: User-Mode Linux, which is a program; own_kernel.py runs the
# first.
#
#   hold      in a mount namespace of its own: puts the root together, and onto a disk
#   power     in a pid namespace too, whose end is the end of all the kernel started: runs the kernel
#   become    in the machine, as process 1: mounts the directory it shares, becomes systemd
#   attend    in the machine, as a service of it: does the jobs that own_kernel.py puts into that directory
#
# MACHINE_*        as in machine.sh; MACHINE_PREPARE has a /proc
# MACHINE_KERNEL   what kernel.sh made; it is only read
set -euo pipefail
self=$(readlink -f "$0")

hold() {
    root=$MACHINE_DIR/store/root place=$MACHINE_DIR/store/place
    . "$(dirname "$self")/root.sh"
    # For what there is no hardware, and no module.
    lay_root getty.target getty-static.service serial-getty@.service modprobe@.service systemd-modules-load.service \
        proc-sys-fs-binfmt_misc.automount
    mount -t proc proc "$root/proc"
    chroot "$root" /bin/sh -euc "$MACHINE_PREPARE"
    umount "$root/proc"
    put_attendant
    mkdir "$place" "$place".{upper,work}
    mount -t overlay -o "lowerdir=$MACHINE_KERNEL,upperdir=$place.upper,workdir=$place.work" overlay "$place"
    mkdir -p "$place/proc" "$place/tmp" "$place/jobs"
    mount -t tmpfs -o size=2G memory "$place/tmp"
    mount --bind "$MACHINE_DIR/jobs" "$place/jobs"
    # Without a journal: it is never booted again.
    mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=0 -d "$root" "$place/disk" 1G
    setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount --ipc --net bash "$self" power
}

put_attendant() {
    install -m 755 "$self" "$root/usr/local/sbin/own_kernel"
    cat >"$root/etc/systemd/system/attend.service" <<'END'
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/usr/local/sbin/own_kernel attend
OOMScoreAdjust=-1000
END
    mkdir -p "$root/etc/systemd/system/sysinit.target.wants"
    ln -s ../attend.service "$root/etc/systemd/system/sysinit.target.wants/"
}

power() {
    local place=$MACHINE_DIR/store/place
    mount -t proc proc "$place/proc"
    touch "$place/jobs/powered"
    # Not as process 1, which no signal without a handler ends. Through cat: it cannot wait for a file to take its words.
    TMPDIR=/tmp chroot "$place" /usr/bin/linux.uml mem=512M seccomp=auto umid=machine uml_dir=/tmp/uml \
        ubd0=/disk root=/dev/ubda rootfstype=ext4 rw con=null con0=null,fd:1 ssl=null \
        "hostname=$MACHINE_NAME" systemd.unit=multi-user.target systemd.show_status=no quiet panic=1 \
        init=/usr/local/sbin/own_kernel 2>&1 | cat
}

become() {
    export PATH=/usr/sbin:/usr/bin:/sbin:/bin
    # By the old interface of mount, which Debian 12 has, or else by the new one.
    mount -n -t hostfs -o /jobs none /media 2>/dev/null || mount -n -t hostfs -o hostfs=/jobs none /media
    touch /media/booted
    exec /lib/systemd/systemd
}

attend() {
    local job
    shopt -s nullglob
    cd /
    export HOME=/root USER=root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    exec 8<> <(:)
    while :; do
        for job in /media/*.job; do
            mv "$job" "${job%.job}.sh"
            work "${job%.job}" &
        done
        read -r -t 0.05 -u 8 || true # nothing in the machine tells that a file of the host's has come
    done
}

work() {
    local status=0
    bash "$1.sh" <"$1.in" >"$1.out" 2>"$1.err" || status=$?
    echo "$status" >"$1.part"
    sync "$1.out" "$1.err" "$1.part"
    mv "$1.part" "$1.status"
}

"${1:-become}"
