#!/bin/sh
# Create the pinned Prefect environments the server tests run against: .envs/prefect2 and .envs/prefect3.
#
# usage: tests/envs/make.sh [prefect2|prefect3]...
# The locks were made on Python 3.11, so a python3.11 is taken if there is one, else $PYTHON, else python3.
# An environment is made once: its stamp is a hash of its lock file and interpreter, and an equal stamp costs nothing.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
envs=$(cd "$here/../.." && pwd)/.envs
python=
for each in python3.11 "${PYTHON:-}" python3; do
    if [ -n "$each" ] && "$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$each
        break
    fi
done
[ $# -gt 0 ] || set -- prefect2 prefect3

if [ -z "$python" ]; then
    echo "cannot make the Prefect environments: there is no Python 3.11; install it, or name it in PYTHON" >&2
    exit 1
fi

mkdir -p "$envs"
exec 9>"$envs/.lock"
flock 9 # two `make test` in one checkout must not build into the same directory

for name in "$@"; do
    lock=$here/$name.txt
    target=$envs/$name
    stamp=$({ cat "$lock"; "$python" -VV; } | sha256sum | cut -c1-64)
    if [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ]; then
        continue
    fi
    echo "$name: making $target ($(grep -c == "$lock") packages, by $($python -V); a few minutes, once)"
    rm -rf "$target"
    "$python" -m venv "$target"
    # --no-deps: the lock file is the whole truth, so nothing may be resolved anew.
    "$target/bin/python" -m pip install -qq --disable-pip-version-check --no-input --no-deps -r "$lock"
    "$target/bin/python" -m pip check --disable-pip-version-check >"$target/check.log" 2>&1 ||
        echo "$name: pip check complains, see $target/check.log"
    echo "$stamp" >"$target/stamp"
    echo "$name: ready"
done
