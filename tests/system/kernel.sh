#!/usr/bin/env bash
# Fetch the kernel that machines with a kernel of their own run: .envs/machines/kernel, User-Mode Linux and the C library
# it needs. From Debian's next release, whatever the machine has: those of Debian 12 and 13 die on processors with AMX.
# As root; takes a quarter of a minute, once.
#
# usage: tests/system/kernel.sh
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
kernel=$root/.envs/machines/kernel
mkdir -p "$root/.envs/machines"
exec 9>"$root/.envs/machines/.kernel.lock"
flock 9

stamp=$(sha256sum <"$0" | cut -c1-64)
[ "$(cat "$kernel.stamp" 2>/dev/null)" != "$stamp" ] || exit 0
echo "kernel: making $kernel (a quarter of a minute, once)"
rm -rf "$kernel" "$kernel.stamp"
# A mirror that stands still is good enough, so its Release file may have expired.
mmdebstrap --variant=extract --include=user-mode-linux \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
    --dpkgopt='path-exclude=/usr/share/*' --dpkgopt='path-exclude=/usr/lib/uml/*' \
    --dpkgopt='path-exclude=/usr/lib/*/gconv/*' \
    forky "$kernel" 2>"$kernel.log" || { grep -m1 '^E:' "$kernel.log" >&2 || cat "$kernel.log" >&2; exit 1; }
[ -e "$kernel/lib64" ] || ln -s usr/lib64 "$kernel/lib64"
echo "$stamp" >"$kernel.stamp"
