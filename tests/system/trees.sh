#!/usr/bin/env bash
# Make the systems that the machines of these tests boot: .envs/machines/SUITE, a Debian with systemd and what the
# package in dist/ depends on. As root; each takes half a minute, and is made anew only when its contents change.
#
# usage: tests/system/trees.sh PACKAGE.deb SUITE...
set -euo pipefail

package=$1
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
depends=$(dpkg-deb -f "$package" Depends)
base=systemd,systemd-sysv,dbus,libpam-systemd,procps,iproute2,bash-completion,man-db,git
mkdir -p "$root/.envs/machines"
exec 9>"$root/.envs/machines/.lock"
flock 9

for suite in "$@"; do
    tree=$root/.envs/machines/$suite
    stamp=$(printf '%s\n' "$suite" "$base" "$depends" | cat - "$0" | sha256sum | cut -c1-64)
    [ "$(cat "$tree.stamp" 2>/dev/null)" != "$stamp" ] || continue
    echo "$suite: making $tree (half a minute, once)"
    rm -rf "$tree" "$tree.stamp"
    mmdebstrap --quiet --variant=minbase --include="$base" \
        --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/runnerd*' \
        --customize-hook="chroot \"\$1\" apt-get -qq satisfy -y --no-install-recommends '$depends' >/dev/null" \
        "$suite" "$tree" 2>"$tree.log" || { cat "$tree.log" >&2; exit 1; }
    echo "$stamp" >"$tree.stamp"
done
