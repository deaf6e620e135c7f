# What machine.sh and own_kernel.sh have in common. Sourced in a mount namespace of its own.

# lay_root UNIT...: the machine's root in $root, an overlay of MACHINE_TREE in memory, with these units masked.
lay_root() {
    local pair unit
    mkdir -p "$MACHINE_DIR/store"
    mount -t tmpfs -o mode=755,size=4G machine "$MACHINE_DIR/store"
    mkdir "$root" "$MACHINE_DIR/store/upper" "$MACHINE_DIR/store/work"
    mount -t overlay -o "lowerdir=$MACHINE_TREE,upperdir=$MACHINE_DIR/store/upper,workdir=$MACHINE_DIR/store/work" \
        overlay "$root"
    : >"$root/etc/fstab"
    tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
    echo "$MACHINE_NAME" >"$root/etc/hostname"
    printf '127.0.0.1 localhost %s\n::1 localhost\n' "$MACHINE_NAME" >"$root/etc/hosts"
    for unit in systemd-firstboot.service apt-daily.timer apt-daily-upgrade.timer "$@"; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    for pair in $MACHINE_BINDS; do
        mkdir -p "$root${pair#*:}"
        mount --bind "${pair%%:*}" "$root${pair#*:}"
        mount -o remount,bind,ro "$root${pair#*:}"
    done
}
