"""The shell's commands: `python -m sae_lib harvest` and `train`."""

import json
import re

import pytest
from safetensors.torch import load_file

from sae_lib.__main__ import main

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
