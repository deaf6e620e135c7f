#!/usr/bin/env bash
# The package on machines of its own, Debian 12 and 13 at once; where none can be booted, it says why and that is all.
#
# usage: PY=.venv/bin/python tests/system/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! why=$("$PY" -m tests.kits.machines.machine); then
    echo "==> skipped: $why"
    exit 0
fi
packaging/deb/build.sh --lintian
tests/envs/make.sh prefect3
tests/system/trees.sh "$(ls -t dist/runnerd_*_all.deb | head -n1)" bookworm trixie
tests/system/kernel.sh || true # tests that need it are skipped, and say why
exec tests/envs/together.sh \
    'Debian 12, systemd 252' "$PY -m pytest -q --durations=12 tests/system -k bookworm" \
    'Debian 13, systemd 257' "$PY -m pytest -q --durations=12 tests/system -k trixie"
