"""Chaos: the jobs run as a user runs them while things around them are killed, and must leave what undisturbed runs leave.

    make chaos SEED=0        or    PYTHONPATH=.:tests python -m chaos --seed 0 --output out/chaos

faults.py       what is done and when, drawn from the seed
store_proxy.py  stands between the jobs and the S3 server and answers a share of the requests wrongly
full_disk.py    a small disk for what jobs and Ray stage and spill, which can be filled
processes.py    a job's processes, and which of them a fault kills
phases.py       the four jobs: their inputs, commands, progress
checks.py       what a finished run is compared with, and what counts as lost, doubled, skipped, repeated, unreadable
disturb.py      runs a job again and again until all faults of its phase were injected and its output is complete
table.py        what was done and what came out, as text and JSON
"""
