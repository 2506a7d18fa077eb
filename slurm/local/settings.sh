# shellcheck shell=bash disable=SC2034  # read by up.sh, down.sh and node.sh
# Names, places and sizes of the local cluster; the environment may name others.
ROOT=${SLURM_LOCAL:-/tmp/wavegan-slurm}  # all that the cluster writes
NODES=${SLURM_LOCAL_NODES:-2}            # node1, node2, ...: each a network, process, host-name and mount namespace
GPUS=${SLURM_LOCAL_GPUS:-2}              # fake ones, on each node
CPUS=4 MEMORY=8000                       # of each node, in cores and MB: what it says it has
NETWORK=10.231.7 BRIDGE=wgslurm0 PREFIX=wgslurm
CTLD_PORT=16817 SLURMD_PORT=16818 DBD_PORT=16819
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export SLURM_CONF=$ROOT/slurm.conf

die() { echo "slurm/local: $*" >&2; exit 1; }

gone() {  # PID: has it ended? (kill -0 succeeds on zombies)
    [ ! -e "/proc/$1" ] || grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null
}

stop() {  # PID_FILE: end that process, kindly for 5 s
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 100); do gone "$pid" && return; sleep 0.05; done
    kill -9 "$pid" 2>/dev/null || true
}

waiting() {  # SECONDS WHAT COMMAND...: until the command succeeds
    local seconds=$1 what=$2
    shift 2
    for _ in $(seq $((seconds * 20))); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done
    die "$what did not come up within $seconds s; look into $ROOT/log"
}
