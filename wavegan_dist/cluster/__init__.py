"""Jobs on Slurm: training that survives preemption, and the evaluation of its snapshots; docs/cluster.md.

A job runs a command that a person could type: this room uses training and evaluation through the command line only.
"""
