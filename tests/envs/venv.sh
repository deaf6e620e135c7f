#!/bin/sh
# Make or freshen one virtual environment of this checkout; costs nothing when it is as it should be.
#
# usage: PYTHON=python3.11 tests/envs/venv.sh dev|oldest|lean|demo
#
#   dev      .venv         the locked tools and newest libraries, and this checkout (editable)
#   oldest   .venv-oldest  the oldest libraries that are supported, and this checkout (editable)
#   lean     .venv-lean    a copy of the package with its run-time libraries, as it would be installed
#   demo     .venv-demo    the same and the `embedded` extra, held to the Prefect the server tests run against
#
# The stamp is written last and tells what went in: whatever breaks off is taken up again by the next call.
set -eu

name=${1:-}
PYTHON=${PYTHON:-python3}
version=$("$PYTHON" -VV) || exit 1 # before anything is removed
root=$(cd "$(dirname "$0")/../.." && pwd)
envs=tests/envs
cd "$root"

case $name in
dev) target=.venv lock=$envs/dev.txt ;;
oldest) target=.venv-oldest lock=$envs/oldest.txt ;;
lean) target=.venv-lean lock= ;;
demo) target=.venv-demo lock=$envs/prefect3.txt ;;
*)
    echo "usage: $0 dev|oldest|lean|demo" >&2
    exit 2
    ;;
esac

# The copies are stale as soon as any source changes, the editable ones only with their metadata.
contents() {
    echo "$root" # a virtual environment does not survive being moved
    echo "$version"
    cat "$envs/venv.sh" pyproject.toml $lock
    case $name in lean | demo) find runnerd -type f ! -name '*.pyc' -exec sha256sum {} + | LC_ALL=C sort ;; esac
}

pip() {
    "$target/bin/python" -m pip "$@" --disable-pip-version-check --no-input -qq
}

stamp=$(contents | sha256sum | cut -c1-64)
[ "$(cat "$target/stamp" 2>/dev/null)" != "$stamp" ] || exit 0

made_by="$version in $root"
if [ "$(cat "$target/made-by" 2>/dev/null)" != "$made_by" ]; then
    echo "--> $target: creating it with $version"
    rm -rf "$target"
    "$PYTHON" -m venv "$target" || {
        rm -rf "$target"
        echo "cannot create $target: is Python's venv module installed (python3-venv on Debian and Ubuntu)?" >&2
        exit 1
    }
    echo "$made_by" >"$target/made-by"
fi
rm -f "$target/stamp"
rm -rf build # setuptools would install from it what is long deleted here
echo "--> $target: installing packages (a minute or two, once)"
case $name in
dev | oldest)
    pip install --no-deps -r "$lock" # the lock is the whole truth: nothing is resolved anew
    pip install --no-deps --editable .
    ;;
lean) pip install . && pip install --no-deps --force-reinstall . ;;
demo) pip install -c "$lock" '.[embedded]' && pip install --no-deps --force-reinstall . ;;
esac
rm -rf build
echo "$stamp" >"$target/stamp"
