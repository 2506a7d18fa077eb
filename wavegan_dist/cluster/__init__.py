"""Jobs on Slurm: training that survives preemption, and the evaluation of its snapshots; docs/cluster.md.

Jobs start training and evaluation through the command line, so every job can also be run by hand.
"""
