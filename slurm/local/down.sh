#!/usr/bin/env bash
# Stop what up.sh started: jobs, daemons, namespaces, files. Without a running cluster it does nothing.
set -uo pipefail
. "$(dirname "$0")/settings.sh"
if [ -e "$ROOT/up" ]; then
    timeout 5 scancel --user=root --quiet
    for _ in $(seq 50); do [ -z "$(timeout 5 squeue -h)" ] && break; sleep 0.1; done
fi
for keeper in "$ROOT"/run/node*.pid; do  # killing the first process of a PID namespace kills all of its processes
    [ -e "$keeper" ] && ! gone "$(cat "$keeper")" && kill -9 "$(cat "$keeper")"
done
for daemon in slurmctld slurmdbd mariadbd munged; do stop "$ROOT/run/$daemon.pid"; done
command -v ip >/dev/null && ip link show "$BRIDGE" >/dev/null 2>&1 && ip link del "$BRIDGE"
rm -rf "$ROOT"
