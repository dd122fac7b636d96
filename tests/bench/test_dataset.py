import json
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from sae_lib.bench.dataset import read_updates, write_dataset

VALUES = [("shape", "star"), ("style", "pastel")]
ABOUT = {
    "block": "mid.0",
    "d_model": 3,
    "grid": [2, 2],
    "pictures": 5,
    "pictures_per_shard": 2,
    "values": VALUES,
    "dtype": "float32",
    "model": {"name": "none"},
    "prompts": {"split": "train"},
    "settings": {"seed": 0},
}
CAPTIONS = [{"caption": f"star {row}"} for row in range(5)]
FIRST = "updates-00000-of-00003.safetensors"


def make(rows):
    """Picture n is full of n; the first value is where n is odd, the second everywhere."""
    number = torch.tensor(rows)
    present = torch.stack([number % 2 == 1, number >= 0], -1)
    per_cell = present[:, None].expand(-1, 4, -1)
    updates = number.float()[:, None, None].expand(-1, 4, 3)
    return {"updates": updates, "present": per_cell, "valid": per_cell, "shows": present, "stated": ~present}


def test_what_is_written_is_read_by_plain_safetensors_picture_by_picture(tmp_path):
    write_dataset(tmp_path, ABOUT, CAPTIONS, make)
    shards = [load_file(path) for path in sorted(tmp_path.glob("updates-*.safetensors"))]
    assert [len(shard["updates"]) for shard in shards] == [2, 2, 1]
    updates, present = (np.concatenate([shard[name] for shard in shards]) for name in ("updates", "present"))
    assert updates.shape == (5, 4, 3) and updates[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert present.dtype == bool and present[:, 3, 0].tolist() == [False, True, False, True, False]
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert lines[4] == {"row": 4, "caption": "star 4"}


def test_the_six_lines_of_the_data_card_read_it(tmp_path, monkeypatch):
    write_dataset(tmp_path, ABOUT | {"dtype": "float16"}, CAPTIONS, make)
    code = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)[1]
    assert len(code.strip().splitlines()) == 6
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)  # noqa: S102  our own
    assert names["vectors"].shape == (20, 3) and names["vectors"].dtype == np.float32
    assert names["vectors"][:, 0].tolist() == [row for row in range(5) for _ in range(4)]


def test_an_export_that_was_killed_goes_on_with_what_is_missing(tmp_path):
    def killed(rows):
        if rows.start == 2:
            raise KeyboardInterrupt
        return make(rows)

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path, ABOUT, CAPTIONS, killed)
    assert [path.name for path in tmp_path.glob("updates-*")] == [FIRST]
    with pytest.raises(ValueError, match="lacks 2 of 3 shards, the first is updates-00001-of-00003.safetensors: start"):
        read_updates(tmp_path)
    asked = []
    write_dataset(tmp_path, ABOUT, CAPTIONS, lambda rows: asked.append(rows.start) or make(rows))
    assert asked == [2, 4]
    write_dataset(tmp_path / "whole", ABOUT, CAPTIONS, make)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == whole


def test_a_shard_that_was_changed_is_refused_by_the_reader_and_made_again_by_the_writer(tmp_path):
    write_dataset(tmp_path, ABOUT, CAPTIONS, make)
    before = (tmp_path / FIRST).read_bytes()
    (tmp_path / FIRST).write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"shard .*{FIRST} is changed or cut short: its hash is not that of dataset"):
        read_updates(tmp_path)
    write_dataset(tmp_path, ABOUT, CAPTIONS, make)
    assert (tmp_path / FIRST).read_bytes() == before
    (tmp_path / FIRST).unlink()
    with pytest.raises(ValueError, match=f"shard .*{FIRST} is missing; start the export again"):
        read_updates(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"seed": 1}}, r"its settings\.seed is 0 \(asked: 1\); use another folder, or remove it"),
        ({"pictures": 4}, r"its pictures is 5 \(asked: 4\)"),
        ({"dtype": "float16"}, r'its dtype is "float32" \(asked: "float16"\)'),
    ],
)
def test_a_folder_with_another_data_set_is_refused_by_the_field_and_stays(tmp_path, change, message):
    write_dataset(tmp_path, ABOUT, CAPTIONS, make)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="holds another data set: " + message):
        write_dataset(tmp_path, ABOUT | change, CAPTIONS, make)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_with_other_files_is_refused_and_its_readme_stays(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"holds README.md and no dataset.json: use a folder that is empty"):
        write_dataset(tmp_path, ABOUT, CAPTIONS, make)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_folder_without_a_data_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dataset.json in .*give a folder that `python -m sae_lib export`"):
        read_updates(tmp_path)


def test_an_update_beyond_the_range_of_float16_is_refused_and_no_shard_written(tmp_path):
    def large(rows):
        return make(rows) | {"updates": torch.full((len(rows), 4, 3), 1e6)}

    with pytest.raises(ValueError, match="pictures 0 to 1 exceeds float16's range: store them as float32"):
        write_dataset(tmp_path, ABOUT | {"dtype": "float16"}, CAPTIONS, large)
    assert not list(tmp_path.glob("updates-*"))


def test_tensors_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shows \[2, 1\] \(wanted \[2, 2\]\)"):
        write_dataset(tmp_path, ABOUT, CAPTIONS, lambda rows: make(rows) | {"shows": make(rows)["shows"][:, :1]})
