"""A run that is killed with SIGKILL and started again: as if nothing had happened. `killed.py` tries the notebooks."""

import json
import sys

import pytest

from tests.notebooks import killed
from tests.notebooks.test_jobs import DRIVER

SOURCE = """\
# %% tags=["parameters"]
scale: str = "smoke"
source: str = ""
seed: int = 0

# %%
import os
import time
from pathlib import Path

from matplotlib.figure import Figure

from sae_lib import cached, save_figure, start_run

run = start_run("00_sample", globals())
log = Path(os.environ["SAE_LIB_CACHE"]) / "log"


# %%
def grow(folder):
    for number in range(len(list(folder.glob("*.step"))), 6):
        with log.open("a") as lines:
            lines.write(f"grow {number}\\n")
        time.sleep(0.3)
        (folder / f"{number}.step").write_text(str(number))


def make(folder):
    with log.open("a") as lines:
        lines.write("make\\n")
    (folder / "first").write_text("1")
    time.sleep(1)
    (folder / "second").write_text("2")


grown, made = cached("grown", {}, grow, resumable=True), cached("made", {}, make)

# %%
fig, steps = Figure(), sorted(int(path.read_text()) for path in grown.glob("*.step"))
fig.subplots().plot(steps)
save_figure(run, fig, "sample", {"steps": steps, "made": len(list(made.glob("*[!n]")))}, made)
"""


def test_a_run_that_was_killed_twice_goes_on_and_ends_with_the_record_of_one_left_alone(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "00_sample.py").write_text(SOURCE)
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "src"), "reproduce", "-p", "scale", "smoke"]
    cache = tmp_path / "cache"
    moments = [lambda seconds: any(cache.glob("artefacts/.*/2.step")), lambda seconds: any(cache.glob("*/.*/first"))]
    kills, status = killed.run_killed(command, cache, moments, tmp_path / "log")
    assert status == 0, (tmp_path / "log").read_text()
    making = [kill.running.partition("-")[0] for kill in kills]
    assert making == ["00_sample 3/5; making grown", "00_sample 3/5; making made"]
    assert all(kill.outlived.result() < killed.PATIENCE for kill in kills)
    (record,) = cache.glob("smoke/figures/*/*.json")
    assert json.loads(record.read_text())["result"] == {"steps": [*range(6)], "made": 2, "verdicts": []}
    steps = [f"grow {number}" for number in range(6)]
    assert (
        (cache / "log").read_text().splitlines()
        in (
            [*steps[:4], *steps[3:], "make", "make"],  # it was in its fourth step when it was killed
            [*steps[:3], *steps[3:], "make", "make"],
        )
    )
    assert list(killed.leftovers(cache)) == []


@pytest.mark.parametrize("seed", range(20))
def test_kills_come_at_moments_within_the_length_of_a_run(seed):
    waits = killed.pauses(100.0, 5, seed)
    assert len(waits) == 5 and min(waits) >= 0 and sum(waits) <= 100
    assert waits == killed.pauses(100.0, 5, seed) != killed.pauses(100.0, 5, seed + 1)


def test_a_value_that_differs_and_one_that_is_missing_are_named():
    assert killed.differences({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 4, "d": 5}) == ["b", "c", "d"]
