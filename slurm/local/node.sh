#!/usr/bin/env bash
# One node of the local cluster: node.sh start K | kill-slurmd K (its jobs' processes live on) | crash K (all of it dies)
set -euo pipefail
. "$(dirname "$0")/settings.sh"
what=${1:?start, kill-slurmd or crash} k=${2:?number of the node}
name=node$k keeper=$ROOT/run/node$k.pid  # the keeper: first process of the node's namespaces, as seen from outside

inside() {  # COMMAND...: run it in the node's namespaces
    nsenter --target "$(pgrep -P "$(cat "$keeper")")" --net --uts --mount --pid "$@" </dev/null
}

case $what in
start)
    mkdir -p "$ROOT/spool/$name"
    if [ -e "$keeper" ] && ! gone "$(cat "$keeper")"; then  # the node lives, its slurmd does not
        inside slurmd -N "$name" -f "$SLURM_CONF" >>"$ROOT/log/$name.out" 2>&1
        exit
    fi
    # shellcheck disable=SC2016  # expanded by the inner shell
    setsid nsenter --net="/run/netns/$PREFIX-$k" unshare --uts --mount --pid --fork --kill-child --mount-proc bash -c '
        hostname "$1"; mount --bind "$2/hosts" /etc/hosts
        slurmd -N "$1" -f "$SLURM_CONF"
        while :; do sleep 1; done' keeper "$name" "$ROOT" </dev/null >"$ROOT/log/$name.out" 2>&1 &
    echo $! >"$keeper"
    ;;
kill-slurmd) inside kill -9 "$(cat "$ROOT/run/slurmd.$name.pid")" ;;
crash) kill -9 "$(cat "$keeper")" ;;
*) die "$what is none of start, kill-slurmd, crash" ;;
esac
