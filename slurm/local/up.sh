#!/usr/bin/env bash
# Start a real Slurm on this machine, as root and without systemd: munge, MariaDB, slurmdbd, slurmctld and two nodes with fake GPUs,
# each in its own namespaces. Partition `high` preempts `low`. If the cluster is up, only say so; down.sh stops it.
set -euo pipefail
. "$(dirname "$0")/settings.sh"
. "$HERE/configure.sh"

check() {
    [ "$(id -u)" = 0 ] || die "starting Slurm's daemons needs root"
    local program port
    for program in munged slurmctld slurmd slurmdbd mariadbd mariadb ip nsenter; do
        command -v "$program" >/dev/null || die "$program is missing; slurm/local/install.sh installs it"
    done
    for port in $CTLD_PORT $DBD_PORT; do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then die "port $port is taken; is another Slurm running here?"; fi
    done
    if ! ip link add "$BRIDGE" address "$MAC:02:00" type bridge; then die "no network namespaces here; in a container it takes --privileged"; fi
}

start_network() {
    ip addr add "$NETWORK.254/24" dev "$BRIDGE"
    ip link set "$BRIDGE" up
}

start_munge() {
    ( umask 077; mkdir "$ROOT/munge"; head -c 128 /dev/urandom >"$ROOT/munge/key" )
    munged --key-file="$ROOT/munge/key" --seed-file="$ROOT/munge/seed" --log-file="$ROOT/munge/log" \
        --socket="$ROOT/run/munge" --pid-file="$ROOT/run/munged.pid" </dev/null
}

start_database() {
    mariadb-install-db --no-defaults --user=root --datadir="$ROOT/db" --skip-test-db >"$ROOT/log/mariadb-install.log" 2>&1 ||
        die "mariadb-install-db failed; look into $ROOT/log/mariadb-install.log"
    setsid mariadbd --no-defaults --user=root --datadir="$ROOT/db" --socket="$ROOT/db/s" --pid-file="$ROOT/run/mariadbd.pid" \
        --skip-networking --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --innodb-lock-wait-timeout=900 \
        --innodb-flush-log-at-trx-commit=0 --skip-log-bin </dev/null >"$ROOT/log/mariadb.log" 2>&1 &
    waiting 30 mariadbd mariadb --no-defaults -S "$ROOT/db/s" -u root -e 'select 1'
    MYSQL_UNIX_PORT=$ROOT/db/s slurmdbd </dev/null
    waiting 30 slurmdbd sacctmgr -n show cluster
    sacctmgr -i add cluster local >"$ROOT/log/sacctmgr.log" 2>&1
}

all_idle() { [ "$(sinfo -h -N -p low -t idle -o %N | wc -l)" = "$NODES" ]; }

if [ -e "$ROOT/up" ] && timeout 5 sinfo >/dev/null 2>&1; then
    echo "export SLURM_CONF=$SLURM_CONF   # it is up already"
    exit 0
fi
"$HERE/down.sh"  # remains of a failed start
check
trap '"$HERE/down.sh"' ERR
mkdir -p "$ROOT"/{state,spool,log,run,dev,db}
for k in $(seq "$GPUS"); do mknod "$ROOT/dev/gpu$k" c 1 3; done  # Slurm accepts only character devices
write_configuration
start_network
start_munge
start_database
slurmctld -f "$SLURM_CONF" </dev/null
for k in $(seq "$NODES"); do "$HERE/node.sh" start "$k"; done
waiting 30 "a node" all_idle
touch "$ROOT/up"
echo "export SLURM_CONF=$SLURM_CONF   # $NODES nodes are idle"
