#!/usr/bin/env bash
# Control one node of the local cluster: node.sh start K | kill-slurmd K (its job processes live on) | crash K (kills everything)
set -euo pipefail
. "$(dirname "$0")/settings.sh"
what=${1:?start, kill-slurmd or crash} k=${2:?number of the node}
name=node$k keeper=$ROOT/run/node$k.pid  # the keeper: first process of the node's namespaces, as seen from outside

inside() {  # COMMAND...: run the command in the node's namespaces
    nsenter --target "$(pgrep -P "$(cat "$keeper")")" --net --uts --mount --pid "$@" </dev/null
}

case $what in
start)
    mkdir -p "$ROOT/spool/$name"
    if [ -e "$keeper" ] && ! gone "$(cat "$keeper")"; then  # the node is up, its slurmd is not
        inside slurmd -N "$name" -f "$SLURM_CONF" >>"$ROOT/log/$name.out" 2>&1
        exit
    fi
    # shellcheck disable=SC2016  # expanded by the inner shell
    setsid unshare --net --uts --mount --pid --fork --kill-child --mount-proc bash -c '
        hostname "$1"; mount --no-mtab --bind "$2/hosts" /etc/hosts
        until ip addr add "$3/24" dev eth0; do sleep 0.05; done
        ip link set lo up; ip link set eth0 up
        slurmd -N "$1" -f "$SLURM_CONF"
        while :; do sleep 1; done' keeper "$name" "$ROOT" "$NETWORK.$k" </dev/null >"$ROOT/log/$name.out" 2>&1 &
    echo $! >"$keeper"
    ip link del "$PREFIX-v$k" 2>/dev/null || true  # left by a crashed node
    until first=$(pgrep -P "$(cat "$keeper")"); do sleep 0.05; done
    mac=$(printf '%02x' "$k")  # a node keeps its hardware address when it reboots: the others have it in their ARP caches
    ip link add "$PREFIX-v$k" address "$MAC:00:$mac" type veth peer name eth0 address "$MAC:01:$mac" netns "$first"
    ip link set "$PREFIX-v$k" master "$BRIDGE" up
    ;;
kill-slurmd) inside kill -9 "$(cat "$ROOT/run/slurmd.$name.pid")" ;;
crash) kill -9 "$(cat "$keeper")" ;;
*) die "$what is none of start, kill-slurmd, crash" ;;
esac
