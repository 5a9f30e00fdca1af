#!/usr/bin/env bash
# A real SLURM of one node on the loopback, to try sweeps with hydra/launcher=submitit_slurm; as root, without systemd.
# Debian has it: apt-get install slurm-wlm munge.
#   bash scripts/slurm_one_node.sh start FOLDER [CPUS]   then: export SLURM_CONF=FOLDER/slurm.conf
#   bash scripts/slurm_one_node.sh stop FOLDER
set -euo pipefail
action=${1:-} folder=$(realpath -m "${2:?start or stop, and a folder}") cpus=${3:-2}

stop() {
  for name in slurmd slurmctld munged; do
    pid=$(cat "$folder/$name.pid" 2>/dev/null || true)
    test -z "$pid" || kill "$pid" 2>/dev/null || true
    while test -n "$pid" && kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    rm -f "$folder/$name.pid"
  done
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start() {
  for program in munged slurmctld slurmd; do
    command -v "$program" > /dev/null || { echo "error: $program is not installed: slurm-wlm and munge" >&2; exit 4; }
  done
  test "$(id -u)" = 0 || { echo "error: SLURM's daemons start jobs as root" >&2; exit 4; }
  mkdir -p "$folder/state" "$folder/spool"
  chmod 755 "$folder"
  node=$(hostname -s)
  (umask 077; head -c 1024 /dev/urandom > "$folder/munge.key")
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
  cat > "$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MailProg=/bin/true
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
  export SLURM_CONF=$folder/slurm.conf
  slurmctld
  slurmd -N "$node"
  for _ in $(seq 100); do
    case $(sinfo --noheader --format=%T 2> /dev/null) in idle | mixed | allocated)
      echo "export SLURM_CONF=$SLURM_CONF"
      echo "to stop it: bash scripts/slurm_one_node.sh stop $folder" >&2
      return ;;
    esac
    sleep 0.2
  done
  echo "error: the node did not come up: $folder/slurmctld.log, $folder/slurmd.log" >&2
  stop
  exit 4
}

case $action in start | stop) "$action" ;; *) echo "error: start or stop, and a folder" >&2; exit 2 ;; esac
