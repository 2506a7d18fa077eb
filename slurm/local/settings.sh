# shellcheck shell=bash disable=SC2034  # read by up.sh, down.sh and node.sh
# Names, paths and sizes of the local cluster; environment variables override some of them.
ROOT=${SLURM_LOCAL:-/tmp/wavegan-slurm}  # all files of the cluster
NODES=${SLURM_LOCAL_NODES:-2}            # node1, node2, ...: each a network, process, host-name and mount namespace
GPUS=${SLURM_LOCAL_GPUS:-2}              # fake GPUs per node
CPUS=4 MEMORY=8000                       # of each node, in cores and MB, as configured
NETWORK=10.231.7 BRIDGE=wgslurm0 PREFIX=wgslurm
MAC=02:77:67:00                          # first bytes of all hardware addresses
CTLD_PORT=16817 SLURMD_PORT=16818 DBD_PORT=16819
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export SLURM_CONF=$ROOT/slurm.conf

die() { echo "slurm/local: $*" >&2; exit 1; }

gone() {  # PID: whether the process has ended (kill -0 succeeds on zombies)
    [ ! -e "/proc/$1" ] || grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null
}

stop() {  # PID_FILE: end the process with SIGTERM, after 5 s with SIGKILL
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 100); do gone "$pid" && return; sleep 0.05; done
    kill -9 "$pid" 2>/dev/null || true
}

waiting() {  # SECONDS WHAT COMMAND...: wait until the command succeeds
    local seconds=$1 what=$2
    shift 2
    for _ in $(seq $((seconds * 20))); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done
    die "$what did not come up within $seconds s; look into $ROOT/log"
}
