#!/bin/bash
# The stages of a throw-away machine's boot, each in more namespaces than the one before; machine.py runs the first.
#
#   hold      in a mount namespace of its own: puts the root together, boots it, and again for as long as it reboots
#   enter     in all the other namespaces, not yet in the machine's cgroup
#   become    in that too, as process 1: mounts what a booted kernel has, turns the root, becomes systemd
#
# MACHINE_TREE     the system to boot; it is only read       MACHINE_DIR      an empty directory
# MACHINE_CGROUP   an empty cgroup v2 directory              MACHINE_NAME     its host name
# MACHINE_BINDS    "FROM:TO ...", shown read-only            MACHINE_PREPARE  shell code that is run in the root first
set -euo pipefail
self=$(readlink -f "$0")
root=$MACHINE_DIR/store/root
# What would reach beyond the machine.
without=--bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog

hold() {
    local status=129
    echo $$ >"$MACHINE_CGROUP/holder/cgroup.procs"
    . "$(dirname "$self")/root.sh"
    # For what a container's kernel side does not have.
    lay_root sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount dev-hugepages.mount \
        console-getty.service systemd-remount-fs.service
    chroot "$root" /bin/sh -euc "$MACHINE_PREPARE"
    while [ $status = 129 ]; do # SIGHUP is what reboot(2) in a pid namespace ends it with
        remove_cgroup
        mkdir "$MACHINE_CGROUP/machine"
        status=0
        setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount --uts --ipc --net bash "$self" enter || status=$?
    done
}

remove_cgroup() {
    # Processes of the last boot are gone a moment after its process 1.
    local tries=100
    while [ -d "$MACHINE_CGROUP/machine" ] && [ $((tries--)) -gt 0 ]; do
        find "$MACHINE_CGROUP/machine" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.05
    done
}

enter() { # who enters a cgroup from outside of the namespaces would be process 0 in it
    echo 0 >"$MACHINE_CGROUP/machine/cgroup.procs"
    exec unshare --cgroup bash "$self" become
}

become() {
    local name number=0
    mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
    for name in sys sysrq-trigger; do
        [ -e "$root/proc/$name" ] || continue
        mount --bind "$root/proc/$name" "$root/proc/$name"
        mount -o remount,bind,ro "$root/proc/$name"
    done
    cat /proc/sys/kernel/random/uuid >"$MACHINE_DIR/store/boot_id"
    mount --bind "$MACHINE_DIR/store/boot_id" "$root/proc/sys/kernel/random/boot_id"
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
    mount -t tmpfs -o mode=755,nosuid,size=8M dev "$root/dev"
    mkdir "$root/dev/pts" "$root/dev/shm"
    for name in null zero full random urandom tty; do
        touch "$root/dev/$name"
        mount --bind "/dev/$name" "$root/dev/$name"
    done
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    for name in stdin stdout stderr; do ln -s "/proc/self/fd/$((number++))" "$root/dev/$name"; done
    for name in dev/shm:1777 run:755 tmp:1777; do
        mount -t tmpfs -o "mode=${name#*:},nosuid,nodev" tmpfs "$root/${name%:*}"
    done
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mkdir -p "$root/.old"
    cd "$root"
    pivot_root . .old
    umount -l /.old
    rmdir /.old
    mount --make-rshared / # or what a service is shown by a mount of its own (credentials) stays empty
    hostname "$MACHINE_NAME"
    exec setpriv $without env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=machine \
        /lib/systemd/systemd --system systemd.unit=multi-user.target systemd.log_target=journal
}

"$1"
