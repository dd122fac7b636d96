"""start_run: what papermill passes on unseen is refused here."""

import os
import random
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch

from sae_lib import load_pipeline
from sae_lib.companion.run import Run, fits, start_run
from sae_lib.models import scales

DECLARED = {"scale": str, "source": str, "seed": int, "k": int | None, "rate": float}


def notebook_globals(**values):
    defaults = {"scale": "pocket", "source": "", "seed": 0, "k": 10, "rate": 0.1}
    return {"__annotations__": DECLARED, **defaults, **values}


def test_a_run_states_the_values_of_the_declared_parameters():
    run = start_run("04_transfer", notebook_globals(k=None, rate=1))
    assert dict(run.parameters) == {"scale": "pocket", "source": "", "seed": 0, "k": None, "rate": 1}


def test_the_same_seed_gives_the_same_random_numbers():
    def draw():
        start_run("04_transfer", notebook_globals(seed=3))
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()


def test_pocket_and_smoke_compute_with_one_thread_and_sdxl_with_all_that_there_were(monkeypatch):
    monkeypatch.setattr(scales, "_ALL_THREADS", 3)
    threads = {}
    for scale in ("sdxl", "pocket", "sdxl", "smoke"):  # it ends with one, as the other tests want
        start_run("04_transfer", notebook_globals(scale=scale))
        threads[scale] = torch.get_num_threads()
    assert threads == {"sdxl": 3, "pocket": 1, "smoke": 1}


def test_the_number_of_threads_does_not_depend_on_the_environment():
    script = (
        "import torch; from sae_lib.models import set_up_torch; set_up_torch('pocket'); print(torch.get_num_threads())"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "4"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_who_loads_a_pocket_pipeline_computes_with_one_thread():
    torch.set_num_threads(2)
    load_pipeline("turbo")
    assert torch.get_num_threads() == 1


def test_the_house_style_is_set():
    matplotlib.rcdefaults()
    start_run("04_transfer", notebook_globals())
    assert matplotlib.rcParams["font.size"] == 9


def test_a_parameter_that_papermill_injects_unknown_is_refused():
    history = ["", "scale: str = 'pocket'", "# Parameters\nscale = 'smoke'\nsede = 1\n", "offset = 3"]
    with pytest.raises(ValueError, match="04_transfer: unknown parameter sede; it has scale, source, seed, k, rate"):
        start_run("04_transfer", notebook_globals(In=history))


def test_known_injected_parameters_and_other_variables_are_accepted():
    history = ["", "# Parameters\nscale = 'smoke'\n", "limit = 3"]
    assert start_run("04_transfer", notebook_globals(In=history, scale="smoke", limit=3)).scale == "smoke"


@pytest.mark.parametrize("wrong", [{"k": "10"}, {"k": True}, {"seed": 1.0}, {"scale": None}, {"rate": "1e-3"}])
def test_a_value_of_another_type_is_refused(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(TypeError, match=f"parameter {name} = {value!r} is no"):
        start_run("04_transfer", notebook_globals(**wrong))


def test_an_unknown_scale_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"(?s)'pokcet'.*smoke.*pocket.*sdxl"):
        start_run("04_transfer", notebook_globals(scale="pokcet"))


def test_a_notebook_without_the_common_parameters_is_refused():
    with pytest.raises(ValueError, match="must declare `source: str"):
        start_run("04_transfer", {"__annotations__": {"scale": str}, "scale": "pocket"})


def test_types_are_exact_except_that_an_int_is_a_float():
    assert fits(1, float) and fits([1], list[int]) and fits(None, int | None)
    assert not fits(True, int) and not fits(1.0, int) and not fits((1,), list[int])


@pytest.mark.parametrize(
    ("scale", "source", "compared_with"),
    [
        ("smoke", "", None),
        ("pocket", "", "pocket"),
        ("pocket", "random", None),
        ("sdxl", "random/16", None),
        ("sdxl", "", "published"),
    ],
)
def test_only_real_weights_at_full_counts_allow_a_conclusion(scale, source, compared_with):
    run = Run("04_transfer", {"scale": scale, "source": source})
    assert run.compared_with == compared_with and bool(run.mark) == (compared_with is None)
