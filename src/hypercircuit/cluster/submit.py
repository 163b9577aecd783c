"""Submission through submitit.

submitit writes the script, calls sbatch, reads the job's number and keeps the script under it. What
it usually runs, a pickled function inside its own Python process, is not used: it answers Slurm's
signals itself, where a run has to save first, and a requeued job would need the pickle to fit the
versions of its first start. The job runs `JobScript.body` instead, the very text that `--dry-run`
shows.
"""

from __future__ import annotations

from pathlib import Path

from .queue import NoSlurm, require
from .records import FOLDER
from .script import JobScript


def submit_script(script: JobScript, folder: Path) -> str:
    """Hand a job to Slurm and return its number; the script is kept in the folder's `slurm/`.

    **Raises:** `NoSlurm` without Slurm or submitit, `ValueError` with sbatch's words if it refuses.
    """
    for program in ("sbatch", "srun"):
        require(program)
    try:
        import submitit
    except ImportError:
        raise NoSlurm(
            'submitit is not installed; pip install "hypercircuit[slurm]", or submit the script of '
            "--dry-run with sbatch"
        ) from None
    executor = submitit.SlurmExecutor(folder / FOLDER)
    options = {
        # Its own names for these have underscores; of two lines Slurm would take the last.
        name if name == "open-mode" else name.replace("-", "_"): value
        for name, value in script.options.items()
        if value is not False
    }
    executor.update_parameters(
        time=None,
        wckey=None,
        stderr_to_stdout=True,
        use_srun=False,
        additional_parameters=options,
    )
    try:
        job = executor._submit_command(script.body())
    except submitit.core.utils.FailedJobError as error:
        said = str(error).strip().splitlines()
        words = [line for line in said if "error" in line.lower()] or said[-3:]
        raise ValueError(
            f"sbatch refused the job: {' '.join(words)}; change the settings of [slurm] (--set "
            "slurm.KEY=VALUE)"
        ) from None
    return str(job.job_id)
