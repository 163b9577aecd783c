"""History: append, save, load, embed; and what is shown of it while it grows."""

import io
import math
import re
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from hypercircuit.train.history import History
from hypercircuit.train.progress import Progress


def refuses(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def _history() -> History:
    history = History()
    history.record_step(1, energy=float(np.float32(0.1)), gradient_norm=1 / 3, seconds=5e-324)
    history.record_steps(
        np.asarray([2, 5]),
        energy=jnp.asarray([0.7, math.nan], jnp.float32),
        gradient_norm=np.asarray([math.inf, -0.0]),
        seconds=np.asarray([1e300, 2.5]),
    )
    history.record_evaluation(2, {"energy_exact": 0.25, "validation_accuracy": np.float32(0.9)})
    history.record_evaluation(5, {"error": jnp.asarray(1e-3), "validation_accuracy": 1})
    return history


def _assert_same_bits(left: History, right: History) -> None:
    a, b = left.to_arrays(), right.to_arrays()
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert a[name].tobytes() == b[name].tobytes(), name


def test_columns():
    history = _history()
    assert len(history) == 3
    np.testing.assert_array_equal(history.step, [1, 2, 5])
    assert history.energy[0] == np.float32(0.1)
    assert history.gradient_norm[0] == 1 / 3
    assert history.seconds[0] == 5e-324
    evaluations = history.evaluations
    assert list(evaluations) == ["step", "energy_exact", "validation_accuracy", "error"]
    np.testing.assert_array_equal(evaluations["error"], [math.nan, np.float32(1e-3)])
    np.testing.assert_array_equal(evaluations["energy_exact"], [0.25, math.nan])
    history.energy[0] = 3.0
    assert history.energy[0] == np.float32(0.1)


def test_arrays_restore_every_bit():
    history = _history()
    restored = History.from_arrays(history.to_arrays())
    _assert_same_bits(history, restored)
    restored.record_step(6, energy=0.0, gradient_norm=0.0, seconds=3.0)
    restored.record_evaluation(6, {"error": 0.0})
    assert len(history) == 3
    _assert_same_bits(History(), History.from_arrays(History().to_arrays()))


def test_files_restore_every_bit(tmp_path):
    history = _history()
    history.save(tmp_path / "run")
    history.save(tmp_path / "run")
    _assert_same_bits(history, History.load(tmp_path / "run"))
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["evaluations.csv", "history.csv"]
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert lines[0] == "step,energy,gradient_norm,seconds"
    assert lines[2] == "2,0.699999988079071,inf,1e+300"
    History().save(tmp_path / "empty")
    _assert_same_bits(History(), History.load(tmp_path / "empty"))


def test_steps_must_grow():
    history = _history()
    with refuses("step must be larger than the one before, 5, got 5; to resume, restore"):
        history.record_step(5, energy=0.0, gradient_norm=0.0, seconds=0.0)
    with refuses("step must be larger than the one before, 8, got 7"):
        zeros = np.zeros(3)
        history.record_steps(
            np.asarray([6, 8, 7]), energy=zeros, gradient_norm=zeros, seconds=zeros
        )
    with refuses("step of an evaluation must be larger than the one before, 5, got 3"):
        history.record_evaluation(3, {})
    _assert_same_bits(history, _history())


def test_wrong_values():
    history = _history()
    with refuses("must have equal lengths, got {'step': 1, 'energy': 2, 'gradient_norm': 1, 'sec"):
        history.record_steps(
            np.asarray([9]), energy=np.zeros(2), gradient_norm=np.zeros(1), seconds=np.zeros(1)
        )
    with refuses("values['loss'] must be one real number, got array([1., 2.]); reduce it"):
        history.record_evaluation(9, {"loss": np.asarray([1.0, 2.0])})
    for name in ("step", "a,b", "a\nb", ""):
        with refuses(f"and not 'step', got {name!r}; rename it"):
            history.record_evaluation(9, {name: 1.0})
    _assert_same_bits(history, _history())


def test_wrong_arrays():
    arrays = _history().to_arrays()
    with refuses("arrays must be those of History.to_arrays; missing ['energy'], unknown ['x']"):
        History.from_arrays({("x" if k == "energy" else k): v for k, v in arrays.items()})
    with refuses("evaluations/error must have one entry per evaluation, 2, got 1"):
        History.from_arrays({**arrays, "evaluations/error": np.zeros(1)})
    with refuses("step of an evaluation must be larger than the one before, 5, got 2"):
        History.from_arrays({**arrays, "evaluations/step": np.asarray([5, 2])})


def test_wrong_files(tmp_path):
    _history().save(tmp_path)
    path = tmp_path / "history.csv"
    text = path.read_text()
    path.write_text(text[:-8])
    with refuses("history.csv, line 4: must have 4 values, got 3; the file was changed or cut"):
        History.load(tmp_path)
    path.write_text(text.replace("inf", "x"))
    with refuses("history.csv, line 3: gradient_norm must be a number, got 'x'"):
        History.load(tmp_path)
    path.write_text("step,loss\n")
    with refuses("must have the columns step, energy, gradient_norm, seconds, got step, loss"):
        History.load(tmp_path)
    path.write_text("")
    with refuses("history.csv must start with a header with 'step'; choose the folder of a run"):
        History.load(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"history\.csv"):
        History.load(tmp_path)


def test_further_columns_of_the_steps(tmp_path: Path):
    history = History()
    step = {"energy": 0.5, "gradient_norm": 0.1, "seconds": 1.0}
    history.record_step(1, **step)
    history.record_step(2, **step, more={"kl": 0.1, "beta": 1 / 3})
    history.record_step(4, **step, more={"beta": 0.25})
    assert list(history.more) == ["kl", "beta"]
    np.testing.assert_array_equal(history.more["kl"], [math.nan, 0.1, math.nan])
    history.save(tmp_path)
    header = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert header == "step,energy,gradient_norm,seconds,kl,beta"
    for copy in (History.from_arrays(history.to_arrays()), History.load(tmp_path)):
        for name, column in history.more.items():
            np.testing.assert_array_equal(copy.more[name], column)
    copy.record_step(5, **step, more={"kl": 2.0})
    np.testing.assert_array_equal(copy.more["beta"], [math.nan, 1 / 3, 0.25, math.nan])
    with refuses("more must not name the column 'energy' again; rename it"):
        history.record_step(6, **step, more={"energy": 1.0})
    with refuses("values must be named by words without commas"):
        history.record_step(6, **step, more={"a,b": 1.0})


# --- progress ---------------------------------------------------------------------------


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _show(progress: Progress, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.start(8, initial=3) as display:
        display.update(4, energy=0.75, gradient_norm=0.02)
        display.evaluated(0.25)
        display.evaluated(math.nan)
        display.evaluated(0.125)
        display.write("a message")
        display.update(6, energy=0.5, gradient_norm=0.01)
        display.close()
    return stream.getvalue()


def test_lines_where_stderr_is_no_terminal(monkeypatch: pytest.MonkeyPatch):
    lines = _show(Progress(log_seconds=0), monkeypatch, io.StringIO()).splitlines()
    assert lines == [
        "step 4/8 energy 0.7500 |grad| 2.0e-02 time left unknown",
        "a message",
        "step 6/8 energy 0.5000 |grad| 1.0e-02 best val 25.00% time left 00:00",
    ]
    quiet = _show(Progress(log_seconds=1e9), monkeypatch, io.StringIO()).splitlines()
    assert quiet == lines  # the first and the last step are always told


def test_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch):
    text = _show(Progress(), monkeypatch, _Terminal())
    assert "a message\n" in text
    assert "energy 0.5000 |grad| 1.0e-02 best val 25.00%" in text
    assert "6/8" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_says_what_the_energy_is(monkeypatch: pytest.MonkeyPatch, terminal: bool):
    stream = _Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(log_seconds=0).start(8, energy="energy of the operators") as display:
        display.update(4, energy=0.75, gradient_norm=0.02)
    assert "energy of the operators 0.7500 |grad| 2.0e-02" in stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_of_what_has_no_energy(monkeypatch: pytest.MonkeyPatch, terminal: bool):
    stream = _Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(log_seconds=0).start(8, unit="site") as display:
        display.update(4)
        display.update(8)
    text = stream.getvalue()
    assert "energy" not in text
    if terminal:
        assert "8/8" in text
        assert "site/s" in text
    else:
        assert text.splitlines()[0] == "site 4/8 time left unknown"


def test_no_progress(monkeypatch: pytest.MonkeyPatch):
    assert _show(Progress(enabled=False), monkeypatch, _Terminal()) == ""
    with refuses("log_seconds must be at least 0, got -1; for no lines at all set enabled=False"):
        Progress(log_seconds=-1)
