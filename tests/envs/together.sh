#!/usr/bin/env bash
# Run several commands at once: together.sh NAME COMMAND [NAME COMMAND]...
# What each of them said comes when it has ended, under its name. Fails when one of them failed.
set -uo pipefail
said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT
names=() pids=() status=0
while [ $# -ge 2 ]; do
    bash -c "$2" >"$said/${#pids[@]}" 2>&1 &
    names+=("$1") pids+=($!)
    shift 2
done
# Whoever ends us ends them: a command in the background would go on.
trap 'kill "${pids[@]}" 2>/dev/null; wait; exit 143' TERM INT
for number in "${!pids[@]}"; do
    wait "${pids[$number]}" || { status=1; names[number]+=" (failed)"; }
    printf '%s\n' "--- ${names[$number]}"
    cat "$said/$number"
done
exit $status
