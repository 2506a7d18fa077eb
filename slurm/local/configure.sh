# shellcheck shell=bash
# Writes the cluster's slurm.conf, gres.conf and slurmdbd.conf. Sourced by up.sh after settings.sh.
#
# cred_expire: a requeued job starts only after its old credential has expired, by default 120 s later.
# preempt_send_user_signal: a preempted job receives the signal of its --signal option at the start of the grace period.
# verbose: the log of a node has a line for each signal that has reached a job.
# config_overrides: nodes may have more cores than this machine.  batch_sched_delay, sched_interval: tests need not wait.
write_configuration() {
    local host munge
    host=$(hostname -s) munge=socket=$ROOT/run/munge,cred_expire=5
    cat >"$SLURM_CONF" <<END
ClusterName=local
SlurmctldHost=$host($NETWORK.254)
SlurmctldPort=$CTLD_PORT
SlurmUser=root
AuthType=auth/munge
AuthInfo=$munge
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool/%n
SlurmctldPidFile=$ROOT/run/slurmctld.pid
SlurmdPidFile=$ROOT/run/slurmd.%n.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd.%n.log
SlurmdDebug=verbose
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$NETWORK.254
AccountingStoragePort=$DBD_PORT
AccountingStoragePass=$ROOT/run/munge
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=$((MEMORY / CPUS / 2))
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=8
SlurmctldTimeout=8
KillWait=20
CompleteWait=0
BatchStartTimeout=10
TCPTimeout=2
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName=DEFAULT CPUs=$CPUS RealMemory=$MEMORY Gres=gpu:$GPUS Port=$SLURMD_PORT State=UNKNOWN
$(for k in $(seq "$NODES"); do echo "NodeName=node$k NodeAddr=$NETWORK.$k"; done)
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
END
    for k in $(seq "$GPUS"); do echo "Name=gpu File=$ROOT/dev/gpu$k"; done >"$ROOT/gres.conf"
    ( umask 077
    cat >"$ROOT/slurmdbd.conf" <<END
AuthType=auth/munge
AuthInfo=$munge
DbdHost=$host
DbdAddr=$NETWORK.254
DbdPort=$DBD_PORT
SlurmUser=root
StorageType=accounting_storage/mysql
StorageUser=root
StorageHost=localhost
StorageLoc=slurm_acct_db
PidFile=$ROOT/run/slurmdbd.pid
LogFile=$ROOT/log/slurmdbd.log
END
    )
    { echo "127.0.0.1 localhost"; echo "$NETWORK.254 $host"; for k in $(seq "$NODES"); do echo "$NETWORK.$k node$k"; done; } >"$ROOT/hosts"
}
