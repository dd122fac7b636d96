import json

import pytest
import torch

from sae_lib.__main__ import main
from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.stream import TrainingStream
from sae_lib.assets import Assets
from sae_lib.bench import export
from sae_lib.bench.dataset import read_updates
from sae_lib.bench.export import export_updates
from sae_lib.features.reading import Reading


@pytest.fixture(scope="module")
def reading(tmp_path_factory):
    """16 held-out pictures, as features are read in them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_LIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        reading = Reading(Assets("smoke", blocks="up.0.1"))
        reading.make()
        yield reading


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "held-out"
    return export_updates(folder, "up.0.1", 16, "held-out", dtype="float32", scale="smoke")


def test_the_truth_is_that_of_a_reading_of_the_same_pictures(reading, held_out):
    about, data = read_updates(held_out)
    truth = reading.truth("up.0.1")
    assert truth.present.any() and not truth.valid.all()
    assert torch.equal(data["present"], truth.present) and torch.equal(data["valid"], truth.valid)
    assert torch.equal(data["shows"].float(), reading.shows)
    lines = (held_out / "captions.jsonl").read_text().splitlines()
    assert [json.loads(line)["caption"] for line in lines] == reading.prompts
    assert about["settings"]["seed"] == 1_000 and about["grid"] == [8, 8]


def test_the_vectors_are_those_that_an_sae_reads_there(reading, held_out):
    values, indices = reading.saes["up.0.1"].encode_sparse(read_updates(held_out)[1]["updates"])
    assert torch.equal(values, reading.codes("up.0.1")[0]) and torch.equal(indices, reading.codes("up.0.1")[1])


def test_the_vectors_are_those_that_saes_are_trained_on(tmp_path):
    export_updates(tmp_path / "set", "mid.0", 20, dtype="float32", scale="smoke")
    assets = Assets("smoke")
    stream = TrainingStream(assets.pipe(), assets.prompts(20, "train"), "mid.0", CallSettings(1, 0.0, 0, 16))
    torch.testing.assert_close(read_updates(tmp_path / "set")[1]["updates"].flatten(0, 1), stream.in_order()["mid.0"])


def test_what_a_picture_is_does_not_depend_on_how_many_are_drawn_with_it(held_out, tmp_path, monkeypatch):
    """Neither the noise nor, but for the last digits, what comes of it; and the batch size stands in the identity."""
    whole_call = Assets.call
    monkeypatch.setattr(Assets, "call", lambda self, model, seed=0: whole_call(self, model, seed, batch_size=3))
    about, other = read_updates(export_updates(tmp_path, "up.0.1", 7, "held-out", dtype="float32", scale="smoke"))
    data = read_updates(held_out)[1]
    torch.testing.assert_close(other["updates"], data["updates"][:7], rtol=1e-4, atol=1e-4)
    assert (other["present"] != data["present"][:7]).float().mean() < 0.001
    assert about["settings"]["batch_size"] == 3


def test_an_export_in_shards_that_goes_on_has_the_bytes_of_one_that_was_not_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "PICTURES_PER_SHARD", 16)
    for name in ("stopped", "whole"):
        export_updates(tmp_path / name, "up.0.1", 20, scale="smoke")
    last = tmp_path / "stopped" / "updates-00001-of-00002.safetensors"
    last.unlink()
    export_updates(tmp_path / "stopped", "up.0.1", 20, scale="smoke")
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("stopped", "whole")]
    assert files[0] == files[1] and last.name in files[0]


def test_a_shard_is_a_whole_number_of_batches():
    for scale in ("smoke", "pocket"):
        assets = Assets(scale)
        assert export.PICTURES_PER_SHARD % assets.call(assets.one_step)[1].batch_size == 0


def test_stated_are_the_values_of_the_caption(held_out):
    about, data = read_updates(held_out)
    first = json.loads((held_out / "captions.jsonl").read_text().splitlines()[0])
    said = [pair for words in (*first["objects"], first["scene"]) for pair in words.items()]
    stated = [tuple(pair) for pair, there in zip(about["values"], data["stated"][0], strict=True) if there]
    assert said and sorted(stated) == sorted(set(said))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": "mid.9"}, "unknown block 'mid.9'"),
        ({"block": "paper"}, "block is 'paper', which names 4 blocks: export them one by one"),
        ({"scale": "sdxl"}, "scale is 'sdxl'; wanted pocket or smoke"),
        ({"split": "test"}, "unknown split 'test'; choose one of train, held-out"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"prompts": 0}, "prompts is 0; wanted 1 or more$"),
        ({"prompts": 1_001, "split": "held-out"}, "prompts is 1001; wanted 1 or more, and at most the 1000 held out"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export_updates(tmp_path / "set", **arguments)
    assert not (tmp_path / "set").exists()


def test_the_command_says_in_one_line_what_it_wrote_and_what_it_refuses(tmp_path, capsys):
    asked = ["export", str(tmp_path / "set"), "--block", "mid.0", "--prompts", "3", "--scale", "smoke"]
    assert main(asked) == 0
    assert "192 vectors of width 128 of mid.0 from 3 pictures, 1 shards, 0 MB, " in capsys.readouterr().out
    assert main([*asked, "--seed", "1"]) == 1
    assert "settings.seed is 0 (asked: 1)" in capsys.readouterr().err
