#!/bin/sh
# Run the contract suite and the end-to-end tests on old versions of Prefect, one after the other.
# Prints a line a version; the output of each is in .envs/oldest-prefect/VERSION.log.
#
# usage: PY=.venv/bin/python tests/envs/oldest_prefect.sh [VERSION...]
set -u

cd "$(dirname "$0")/../.." || exit 1
PY=${PY:-.venv/bin/python}
here=.envs/oldest-prefect
[ $# -gt 0 ] || set -- 2.14.21 2.20.0 3.0.0 3.4.0 3.7.0
mkdir -p "$here"

# What has to be named beside the version: old releases do not exclude dependencies that came after them, and do not start
# with those. docs/supported-versions.md has the same for administrators.
pins() {
    case $1 in
    2.14.*) echo 'griffe<0.48 sqlalchemy<2.1' ;;
    2.20.0) echo 'anyio<4.10 pydantic<2.9 sqlalchemy<2.1' ;;
    3.0.*) echo 'pydantic<2.10 fastapi<0.151 sqlalchemy<2.1' ;;
    3.4.*) echo 'fastapi<0.130 sqlalchemy<2.1 importlib-metadata' ;; # the last: imported and not required
    3.7.*) echo 'fastapi<0.136 sqlalchemy<2.1' ;;
    esac
}

make_env() {
    stamp="$1 $(pins "$1")"
    [ "$(cat "$here/$1/stamp" 2>/dev/null)" != "$stamp" ] || return 0
    rm -rf "${here:?}/$1"
    # shellcheck disable=SC2046 # one word each
    python3.11 -m venv "$here/$1" && "$here/$1/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
        "prefect==$1" $(pins "$1") && echo "$stamp" >"$here/$1/stamp"
}

failed=0
for version in "$@"; do
    major=${version%%.*}
    log=$here/$version.log
    if ! make_env "$version" >"$log" 2>&1; then
        echo "$version: cannot be installed: $(tail -n 1 "$log")" && failed=1
        continue
    fi
    env "RUNNERD_TEST_PREFECT$major=$PWD/$here/$version" "$PY" -m pytest -q -k "prefect$major" \
        tests/server/test_contract.py tests/server/test_contract_deployments.py tests/server/test_contract_runs.py \
        tests/server/test_contract_pools.py tests/server/test_contract_pool_runs.py tests/server/test_end_to_end.py \
        >>"$log" 2>&1 || failed=1
    echo "$version$(pins "$version" | sed 's/^/ with /'): $(tail -n 1 "$log")"
done
exit $failed
