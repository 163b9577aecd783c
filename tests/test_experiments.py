"""Every experiment runs by its own command with its smoke profile, and shows its results."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

CONFIGS = sorted((Path(__file__).parents[1] / "experiments").glob("*/config.toml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.parent.name)
def test_smoke(config: Path, tmp_path: Path):
    """In a process of its own, because a configuration may ask for float64."""
    command = "restarts" if "restarts" in tomllib.loads(config.read_text()) else "train"
    out = tmp_path / "out"
    arguments = [command, str(config), "--profile", "smoke", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "hypercircuit.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "result.json").read_text())["status"] == "finished"
    assert "results in" in done.stdout
    if (config.parent / "noise.json").exists():
        again = ["noise", str(out), "--multipliers", "0,1"]
        subprocess.run([sys.executable, "-m", "hypercircuit.cli", *again], check=True, timeout=600)
        rows = json.loads((out / "noise.json").read_text())["rows"]
        assert [row["multiplier"] for row in rows] == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.parent.name)
def test_results_are_committed(config: Path):
    text = (config.parent / "README.md").read_text()
    assert f"experiments/{config.parent.name}/config.toml" in text
    assert list(config.parent.glob("result*.json"))
    assert list(config.parent.glob("*.png"))
