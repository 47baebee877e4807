"""Submitting runs to a cluster, or to this machine, and looking after them.

submit.py      the command
resources.py   what to ask of the cluster: its cluster file and the flags
options.py     options of sbatch and srun, and variables, that a site may add
paths.py       what a path may hold
plan.py        which runs: one, seeds, chains, experiments
snapshot.py    the frozen code: its digest, and running a module of it
rundir.py      a run directory, made before anything is submitted: configuration and code frozen
estimate.py    what a run will cost, as far as can be known
batch.py       the sbatch files of a plan
executors.py   hands a plan to Slurm (by submitit), or to this machine
local.py       the runs of a submission one after the other, on this machine
rank.py        on the node: what each rank does
attempt.py     on the node, around the ranks: does it start, does it come back
jobs.py        status, logs, cancel, resume, list
table.py       the table over the runs of an experiment
"""
