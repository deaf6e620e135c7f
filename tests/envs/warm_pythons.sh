#!/bin/sh
# Compare runs that are started cold and warm, of real Prefects under each Python that both they and this machine have.
# Prints two lines for each, of how processes end and of real flows; output: .envs/warm-pythons/PYTHON-VERSION.log.
#
# usage: PY=.venv/bin/python tests/envs/warm_pythons.sh [PYTHON-VERSION...]     such as 3.12-2.20.27
set -u

cd "$(dirname "$0")/../.." || exit 1
PY=${PY:-.venv/bin/python}
here=${ENVS:-$PWD/.envs}/warm-pythons
[ $# -gt 0 ] || set -- 3.9-2.20.27 3.10-2.20.27 3.11-2.20.27 3.12-2.20.27 3.10-3.8.8 3.11-3.9.1 3.12-3.9.1 3.13-3.9.1 3.14-3.9.1
mkdir -p "$here"

find_python() {
    "$PY" -c 'import sys; from tests.kits.pythons import find_python; print(find_python(int(sys.argv[1])) or "")' "${1#3.}"
}

make_env() {
    [ "$(cat "$here/$1/stamp" 2>/dev/null)" != "$3" ] || return 0
    rm -rf "${here:?}/$1"
    "$2" -m venv "$here/$1" &&
        "$here/$1/bin/python" -m pip install -qq --disable-pip-version-check --no-input "prefect==$3" &&
        echo "$3" >"$here/$1/stamp"
}

failed=0
for each in "$@"; do
    minor=${each%%-*} version=${each#*-}
    major=${version%%.*}
    log=$here/$each.log
    python=$(find_python "$minor")
    if [ -z "$python" ]; then
        echo "$each: skipped: there is no Python $minor on this machine"
        continue
    fi
    if ! make_env "$each" "$python" "$version" >"$log" 2>&1; then
        echo "$each: cannot be installed: $(tail -n 1 "$log")" && failed=1
        continue
    fi
    env "RUNNERD_TEST_PYTHON=$python" "$PY" -m pytest -q tests/process/test_warm_ends.py >>"$log" 2>&1 || failed=1
    echo "$each: ends: $(tail -n 1 "$log")"
    env "RUNNERD_TEST_PREFECT$major=$here/$each" "$PY" -m pytest -q -k "prefect$major" \
        tests/server/test_warm_start.py tests/server/test_warm.py >>"$log" 2>&1 || failed=1
    echo "$each: flows: $(tail -n 1 "$log")"
done
exit $failed
