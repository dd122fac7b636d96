"""The shell's commands: `python -m sae_lib harvest` and `train`."""

import json
import os
import re
import subprocess
import sys
import time

import psutil
import pytest
from safetensors.torch import load_file

from sae_lib.__main__ import main
from sae_lib.activations.processes import alone
from sae_lib.cache.artefact import ROOT

RUN = {"scale": "smoke", "vectors": 6_400, "ks": [5], "blocks": ["mid.0", "up.0.1"], "buffer": 3_200, "batch_size": 50}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(RUN))
    return str(path)


def test_training_from_a_store_is_training_from_the_model(config, tmp_path, capsys):
    store, direct, stored = (str(tmp_path / name) for name in ("store", "direct", "stored"))
    assert main(["harvest", config, store, "--dtype", "float32"]) == 0
    assert "2 shards of 2 blocks, 100 prompts, float32, in" in capsys.readouterr().out
    assert main(["train", config, direct]) == main(["train", config, stored, "--store", store]) == 0
    assert "2 SAEs on 1,024 vectors in" in capsys.readouterr().out
    for folder in (tmp_path / "direct").iterdir():
        ours, theirs = (load_file(tmp_path / name / folder.name / "model.safetensors") for name in ("direct", "stored"))
        assert all((ours[name] == theirs[name]).all() for name in ours)
        assert (folder / "diffusion.json").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scael": "smoke"}, "ValueError: .*unknown field scael"),
        ({"blocks": ["mid.9"]}, "ValueError: unknown block 'mid.9'"),
        ({"vectors": 640}, "ValueError: the stream is empty or too short"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_fails(tmp_path, capsys, change, message):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(RUN | change))
    assert main(["train", str(path), str(tmp_path / "saes")]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, error[-1]) and not any("Traceback" in line for line in error)


def test_help_lists_the_configuration_s_fields(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    assert '"expansion_factors"' in shown and "--store" in shown


@pytest.fixture
def small(tmp_path):
    """Writes configurations of a run of seconds; `small(model="base")` changes a field."""

    def write(**changes):
        run = {"scale": "smoke", "prompts": 100, "ks": [5], "blocks": ["mid.0"], "passes": 1, **changes}
        path = tmp_path / f"{len(list(tmp_path.glob('*.json')))}.json"
        path.write_text(json.dumps(run))
        return str(path)

    return write


OTHER_MODEL = r"ValueError: .*pipeline\.weights\.unet is"


def refused(arguments, message, capsys):
    assert main(arguments) == 1
    return re.search(message, capsys.readouterr().err.strip().splitlines()[-1])


def test_saes_and_stores_of_another_model_are_refused_by_the_field_and_stay_as_they_were(small, tmp_path, capsys):
    turbo, base = small(), small(model="base")
    saes, store = tmp_path / "saes", tmp_path / "store"
    assert main(["train", turbo, str(saes)]) == main(["harvest", turbo, str(store)]) == 0
    before = {path: path.read_bytes() for folder in (saes, store) for path in folder.rglob("*.*") if path.is_file()}
    for command, folder in (("train", saes), ("harvest", store)):
        assert refused([command, base, str(folder)], OTHER_MODEL, capsys)
        assert refused([command, small(noise="batch of 50"), str(folder)], r"settings\.noise is \"prompt\"", capsys)
        assert refused([command, small(prompts=101), str(folder)], r"prompts\.count is 100 \(asked: 101\)", capsys)
        assert main([command, turbo, str(folder)]) == 0
    assert before == {
        path: path.read_bytes() for folder in (saes, store) for path in folder.rglob("*.*") if path.is_file()
    }


def test_from_a_store_only_its_own_run_is_trained_and_the_store_says_what_is_written(small, tmp_path, capsys):
    turbo, store = small(blocks=["mid.0", "up.0.1"]), tmp_path / "store"
    assert main(["harvest", turbo, str(store)]) == 0
    for wish, message in (
        ({"model": "base"}, OTHER_MODEL),
        ({"steps": 2}, r"settings\.steps is 1 \(asked: 2\)"),
        ({"blocks": ["mid.0", "down.2.1"]}, r"blocks\.down\.2\.1 is null \(asked: "),
    ):
        assert refused(["train", small(**wish), str(tmp_path / "lie"), "--store", str(store)], message, capsys)
    assert not list(tmp_path.glob("lie/*"))
    assert main(["train", small(), str(tmp_path / "saes"), "--store", str(store)]) == 0  # one of its blocks
    (about,) = (json.loads(path.read_text()) for path in tmp_path.glob("saes/*/diffusion.json"))
    assert about["model"] == "pocket-sdxl-turbo" and about["stored_as"] == "float16" and about["block"] == "mid.0"


def test_a_store_that_is_not_finished_is_refused(small, tmp_path, capsys):
    turbo, store = small(), tmp_path / "store"
    assert main(["harvest", small(buffer=3_200), str(store)]) == 0
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["shards"].popitem()
    (store / "manifest.json").write_text(json.dumps(manifest))
    asked = ["train", turbo, str(tmp_path / "saes"), "--store", str(store)]
    assert refused(asked, "holds 1 of 2 shards: its harvest was stopped; start it again", capsys)


@pytest.fixture
def torchrun(tmp_path):
    """Starts `train` in two processes, of which the second owns no block; the run lasts for minutes."""
    path = tmp_path / "run.json"
    path.write_text(json.dumps(RUN | {"blocks": ["mid.0"], "passes": 5_000}))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*launcher, "-m", "sae_lib", "train", str(path), str(tmp_path / "saes")]
    return lambda: subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_a_worker_that_raises_ends_all_and_says_which_it_was(torchrun, tmp_path):
    with alone(tmp_path / "saes"), torchrun() as processes:  # only the first process takes the lock
        shown = processes.communicate(timeout=180)[1]
    assert processes.returncode == 1
    assert re.search("^process 0 of 2: BlockingIOError: another run is writing into .*saes: wait", shown, re.MULTILINE)


def test_a_worker_that_is_killed_ends_all_and_is_named(torchrun, tmp_path):
    with torchrun() as processes:
        while not (tmp_path / "saes" / ".lock").exists():
            assert processes.poll() is None
            time.sleep(0.2)
        workers = psutil.Process(processes.pid).children()
        (second,) = (worker for worker in workers if worker.environ().get("RANK") == "1")
        second.kill()
        shown = processes.communicate(timeout=180)[1]
    assert processes.returncode == 1
    assert re.search(r"rank\s*: 1 ", shown) and "Signal 9 (SIGKILL)" in shown
    assert not any(worker.is_running() for worker in workers)
    with alone(tmp_path / "saes"):  # free again
        pass
