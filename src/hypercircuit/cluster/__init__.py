"""Clusters: processes of one run, Slurm's jobs and queue, threads, compile cache and doctor."""

from .processes import connect as connect, end_alone as end_alone
from .queue import (
    ACTIVE as ACTIVE,
    NoSlurm as NoSlurm,
    QueuedJob as QueuedJob,
    endings as endings,
    queued_jobs as queued_jobs,
)
from .records import (
    Submission as Submission,
    note_command as note_command,
    read_command as read_command,
    read_submissions as read_submissions,
    submission_lock as submission_lock,
    write_submission as write_submission,
)
from .script import JobScript as JobScript, array_text as array_text
from .submit import submit_script as submit_script
