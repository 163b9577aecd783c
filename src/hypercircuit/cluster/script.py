"""The script of a job: options for sbatch, and shell that carries a run through its time limit.

Slurm sends SIGUSR1 to the script some time before the limit (`--signal=B:USR1@SECONDS`). The
script hands the stop signals on to its command, which saves and ends with exit code 75, "stopped
early, run me again". The script then puts its own job back into the queue (`scontrol requeue`), and
the job goes on from the checkpoint when it starts again::

    Slurm --USR1--> script --USR1--> command: saves, exit 75 --> scontrol requeue

Slurm itself requeues by exit code only where its administrators say so (RequeueExit), hence
`scontrol`. A command that a stop signal ended before it listened (Python was still starting) counts
as 75. A job that is being cancelled is not put back: its state is not RUNNING any more.

Source: the sbatch and scontrol manuals of Slurm 22.05; submitit requeues in the same way.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: Slurm's default MaxArraySize allows the indices 0 to 1000.
ARRAY_SIZE = 1000

#: Before the lines of the setup, which may take long: a signal meanwhile is handed on later.
_HEAD = """\
asked=
child=
hand_on() {{
    asked={signal}
    if [ -n "$child" ]; then kill -s "$asked" "$child" 2>/dev/null; fi
}}
for name in USR1 USR2 TERM HUP; do trap "hand_on $name" "$name"; done
"""
_BODY = """\
# Lines of the setup may have set these; what follows looks at exit codes itself.
set +eu

command_line() {{
    {command}
}}

# The id of this job alone: SLURM_JOB_ID may stand for the whole array.
job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}}}
job=${{job:-$SLURM_JOB_ID}}
echo "job $job on $(hostname), start $((${{SLURM_RESTART_COUNT:-0}} + 1))"

# In the background, so that this shell hears the stop signals and can hand them on.
if [ -n "$asked" ]; then
    code=75  # asked to stop while the lines of the setup ran: nothing has started
else
    command_line &
    child=$!
    if [ -n "$asked" ]; then kill -s "$asked" "$child" 2>/dev/null; fi
    wait "$child"
    code=$?
    while kill -0 "$child" 2>/dev/null; do
        wait "$child"
        code=$?
    done
fi

# Ended by a stop signal before it listened: there was nothing to save.
case $code in
    129 | 138 | 140 | 143) code=75 ;;
esac
echo "job $job ends with exit code $code"

if [ "$code" -eq 75 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -ge {requeues} ]; then
    echo "job $job has been started {starts} times; submit it again to go on"
elif [ "$code" -eq 75 ]; then
    for attempt in 1 2 3 4 5; do
        state=$(squeue --noheader --jobs="$job" --format=%T)
        # A job that is being cancelled stays cancelled.
        if [ -n "$state" ] && [ "$state" != RUNNING ]; then break; fi
        if scontrol requeue "$job"; then
            echo "job $job goes back to the queue"
            break
        fi
        sleep 5
    done
fi
exit "$code"
"""


@dataclass(frozen=True)
class JobScript:
    """A job that runs one command.

    **Attributes:**

    - `options`: of sbatch by their long names, {"time": "12:00:00"}; True is an option without a
      value.
    - `setup`: lines of shell before the command.
    - `command`: one line of shell; the signals reach its process.
    - `requeues`: how often the job goes back to the queue by itself.
    - `stop_signal`: which signal tells the command to stop, whatever the script got; "" is the same
      one.
    """

    options: Mapping[str, str | int | float | bool]
    setup: Sequence[str]
    command: str
    requeues: int
    stop_signal: str = ""

    def body(self) -> str:
        """What follows the options."""
        head = _HEAD.format(signal=self.stop_signal or "$1")
        lines = _BODY.format(
            # exec: the signals are for the command, not for a shell around it.
            command=f"exec {self.command}",
            requeues=self.requeues,
            starts=self.requeues + 1,
        )
        setup = [*self.setup, ""] if self.setup else []
        return "\n".join([head, *setup, lines])

    def text(self) -> str:
        """The whole script, which `sbatch` takes as it is."""
        lines = [_option(name, value) for name, value in self.options.items() if value is not False]
        return "\n".join(["#!/bin/bash", *lines, "", self.body()])


def _option(name: str, value: str | int | float | bool) -> str:
    return f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={shlex.quote(str(value))}"


def array_text(indices: Iterable[int], parallel: int = 0) -> str:
    """Indices as the option `--array` takes them, in ascending order: "0-2,7%4".

    **Arguments:**

    - `parallel`: how many may run at a time, 0 for as many as fit.
    """
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return f"{text}%{parallel}" if parallel else text
