"""Cluster: where the search runs.

- `start`: Ray on this machine, or the cluster of the Ray job we are in.
"""
