#!/bin/sh
# Run the contract suite and the end-to-end tests on old versions of Prefect, installed plainly, one after the other.
# Prints a line a version; the output of each is in .envs/oldest-prefect/VERSION.log.
#
# usage: PY=.venv/bin/python tests/envs/oldest_prefect.sh [VERSION...]
set -u

cd "$(dirname "$0")/../.." || exit 1
PY=${PY:-.venv/bin/python}
here=.envs/oldest-prefect
[ $# -gt 0 ] || set -- 2.14.21 2.20.0 3.0.0 3.4.0 3.7.0
mkdir -p "$here"

# As an administrator would install it today: old releases do not exclude dependencies that came after them.
make_env() {
    [ ! -e "$here/$1/stamp" ] || return 0
    rm -rf "${here:?}/$1"
    python3.11 -m venv "$here/$1" && "$here/$1/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
        "prefect==$1" && date >"$here/$1/stamp"
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
    echo "$version: $(tail -n 1 "$log")"
done
exit $failed
