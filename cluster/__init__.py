"""Cluster: where the search runs.

- `start`: Ray on this machine, or the cluster of the Ray job we are in.
- `joined`: the nodes of a job's cluster, what they see, and whether strangers may use it.
- `token`: the token of Ray's processes, in a file that only its owner can read.
- `health`: ``python -m cluster.health``, the cluster in a few lines.

Beside them the files to edit and run: ``aws.yaml``, ``kubernetes/``, ``slurm.sh``, ``machines.sh``; see ``README.md``.
"""
