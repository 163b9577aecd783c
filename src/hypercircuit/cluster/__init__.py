"""Slurm: job scripts, their submission, what the queue says; threads, compile cache and doctor."""

from .queue import (
    ACTIVE as ACTIVE,
    NoSlurm as NoSlurm,
    QueuedJob as QueuedJob,
    endings as endings,
    queued_jobs as queued_jobs,
)
from .records import (
    Submission as Submission,
    SubmissionLock as SubmissionLock,
    read_submissions as read_submissions,
    write_submission as write_submission,
)
from .script import JobScript as JobScript, array_text as array_text
from .submit import submit_script as submit_script
