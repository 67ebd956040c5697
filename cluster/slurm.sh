#!/usr/bin/env bash
# A search on the nodes of a SLURM allocation. In the root of the project, after `bash .ci/setup` on a login node:
#
#   sbatch cluster/slurm.sh --data /shared/movie --out /shared/runs/first --preset search
#
# Everything after the script's name goes to `python -m search.run`. The project, the data and the run lie on storage
# that every node sees. Edit the lines below for your cluster; `sbatch --nodes=4 --partition=gpu cluster/slurm.sh ...`
# does it for once. Stop it with `scancel --batch --signal=TERM JOBID`. The same command goes on with a run that was
# stopped. More in slurm.md.
#SBATCH --job-name=cellsearch
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=1
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=cellsearch-%j.log
set -eu -o pipefail

code=${SLURM_SUBMIT_DIR:-$PWD}
# shellcheck disable=SC1091
source "$code/.venv/bin/activate"

# The token of this cluster: a file of this job's own that only you can read.
secret=${SEARCH_TOKEN_DIR:-$HOME/.ray}/slurm-$SLURM_JOB_ID
(umask 077 && mkdir -p "${secret%/*}" && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$secret")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$secret RAY_JOB_STOP_WAIT_TIME_S=60 RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS

# Started steps end with this script; nothing else of yours on these nodes is touched.
# shellcheck disable=SC2317
finish() {
    trap - EXIT
    # shellcheck disable=SC2046
    kill $(jobs -p) 2> /dev/null || true
    wait || true
    rm -f "$secret"
}
trap finish EXIT

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
others=$((${#nodes[@]} - 1))
port=$((20000 + SLURM_JOB_ID % 10000))
dashboard=$((port + 10000))
temp=${TMPDIR:-/tmp}/ray-$SLURM_JOB_ID
((${#temp} <= 36)) || temp=/tmp/ray-$SLURM_JOB_ID # names of Ray's sockets below it may have 107 characters, no more
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" \
    python -c 'from ray.util import get_node_ip_address; print(get_node_ip_address())')

# Each node gives Ray what SLURM gave the job on it: the step's shell fills these in.
# shellcheck disable=SC2016
own='--num-cpus=${SLURM_CPUS_ON_NODE} --num-gpus=${SLURM_GPUS_ON_NODE:-0} --dashboard-agent-listen-port=0'
srun --nodes=1 --ntasks=1 --nodelist="$head" --cpus-per-task="$SLURM_CPUS_ON_NODE" bash -c "exec ray start --head \
    --node-ip-address=$address --port=$port --dashboard-host=127.0.0.1 --dashboard-port=$dashboard \
    --temp-dir=$temp $own --block" &
python -m cluster.health --address "$address:$port" --wait 300 > /dev/null || { echo "the head did not start" >&2; exit 1; }
if ((others)); then
    srun --nodes="$others" --ntasks="$others" --exclude="$head" --cpus-per-task="$SLURM_CPUS_ON_NODE" \
        bash -c "exec ray start --address=$address:$port --temp-dir=$temp-\$SLURM_PROCID $own --block" &
fi
python -m cluster.health --address "$address:$port" --nodes "${#nodes[@]}" --wait 300

# SLURM's warning before the end of the time, or of a pre-emption, is passed on: the search saves its epochs and ends.
export RAY_API_SERVER_ADDRESS=http://127.0.0.1:$dashboard
job=search-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
# shellcheck disable=SC2317
stop() {
    stopped=75 # as the search itself says it: to be continued
    echo "stopping: the same command goes on from here"
    ray job stop "$job" || true
}
trap stop TERM
until ray job list > /dev/null 2>&1; do sleep 2; done
ray job submit --submission-id "$job" --working-dir "$code" -- python -m search.run "$@" &
follow=$!
while code_of=0; wait "$follow" || code_of=$?; kill -0 "$follow" 2> /dev/null; do :; done # `wait` also ends at a signal
exit "${stopped:-$code_of}"
