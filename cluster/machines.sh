#!/usr/bin/env bash
# A Ray cluster of machines that you reach by ssh. The project lies in the same folder on all of them, with its
# environment (`bash .ci/setup`), best on storage that they share; so do the data and the runs.
#
#   export MACHINES="gpu1 gpu2 gpu3"      # the first one is the head; anything that ssh takes, such as me@10.0.0.4
#   cluster/machines.sh start             # a token of your own, the head, then the others; then how they are
#   cluster/machines.sh submit --data /shared/movie --out /shared/runs/first --preset search
#   cluster/machines.sh health /shared    # nodes, GPUs, versions, and whether all of them see that folder
#   cluster/machines.sh stop              # ends what `start` started and nothing else
#
# Run it in the project's folder on a machine with ssh keys for the others; CODE names the folder where it differs there.
# The cluster is for a network that you trust: the token keeps strangers out, but nothing is encrypted.
set -eu -o pipefail

read -r -a machines <<< "${MACHINES:?name the machines: export MACHINES=\"gpu1 gpu2\"}"
head=${machines[0]}
code=${CODE:-$PWD}
port=${PORT:-6379}
dashboard=${DASHBOARD:-8265}
# Every command runs in the project's environment, asks for the token, and a search gets a minute to end well.
prepare="cd $(printf %q "$code") && . .venv/bin/activate && umask 077 && export RAY_AUTH_MODE=token \
RAY_USAGE_STATS_ENABLED=0 RAY_JOB_STOP_WAIT_TIME_S=60 && unset RAY_ADDRESS"
# The number of what `start` began on a machine; home directories may be shared, and a number may be another's by now.
process="\$HOME/.ray/cellsearch-$port-\$(uname -n)"
runs="ps -o args= -p \"\$(cat $process.pid 2> /dev/null)\" 2> /dev/null | grep -q 'ray start'"

on() { # on MACHINE COMMAND: run it there
    ssh -o BatchMode=yes "$1" "$prepare && $2"
}

address_of_head() {
    on "$head" "python -c 'from ray.util import get_node_ip_address; print(get_node_ip_address())'"
}

begin() { # begin MACHINE OPTIONS: start Ray there, in the background and in a folder of yours, unless it runs
    on "$1" "mkdir -p ~/.ray && if $runs; then echo '$1: runs already'; else \
nohup ray start $2 --temp-dir=\${RAY_TMPDIR:-/tmp/ray-\$(id -un)} --dashboard-agent-listen-port=0 --block > $process.log 2>&1 < /dev/null & \
echo \$! > $process.pid; fi"
}

share_token() {
    if [ ! -s ~/.ray/auth_token ]; then
        (umask 077 && mkdir -p ~/.ray && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > ~/.ray/auth_token)
    fi
    chmod 600 ~/.ray/auth_token
    for machine in "${machines[@]}"; do
        ssh -o BatchMode=yes "$machine" "umask 077 && mkdir -p ~/.ray && cat > ~/.ray/token.new && \
mv ~/.ray/token.new ~/.ray/auth_token" < ~/.ray/auth_token
    done
}

start() {
    share_token
    address=$(address_of_head)
    begin "$head" "--head --node-ip-address=$address --port=$port --dashboard-host=127.0.0.1 --dashboard-port=$dashboard"
    on "$head" "python -m cluster.health --address $address:$port --wait 120" > /dev/null
    for machine in "${machines[@]:1}"; do
        begin "$machine" "--address=$address:$port"
    done
    on "$head" "python -m cluster.health --address $address:$port --nodes ${#machines[@]} --wait 120"
}

health() {
    address=$(address_of_head)
    on "$head" "python -m cluster.health --address $address:$port ${1:+--storage $(printf %q "$1")}"
}

submit() { # the log is shown until the search ends; Ctrl-C stops showing it, not the search
    on "$head" "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:$dashboard && until ray job list > /dev/null 2>&1; do \
sleep 2; done && ray job submit --working-dir . -- python -m search.run $(printf '%q ' "$@")"
}

stop() { # workers first; a search that runs is asked to end and goes on with the same command later
    for ((i = ${#machines[@]} - 1; i >= 0; i--)); do
        on "${machines[i]}" "if $runs && kill \$(cat $process.pid); then echo '${machines[i]}: stopped'; \
else echo '${machines[i]}: nothing to stop'; fi; rm -f $process.pid"
    done
}

case ${1:-} in
    start | stop) "$1" ;;
    submit | health) "$@" ;;
    *)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
        exit 2
        ;;
esac
