import json
from collections import namedtuple

import pytest
import torch

from sae_lib.activations.denoising import CallSettings
from sae_lib.activations.shards import ShardStream, write_shards
from sae_lib.activations.stream import TrainingStream

PROMPTS = [f"a red circle {number}" for number in range(5)]


@pytest.fixture
def stream(pipe):
    return TrainingStream(pipe, PROMPTS, ["mid.0", "up.0.1"], CallSettings(1, 0.0, 3, 2), buffer=150)


def shards_of(folder):
    return sorted(folder.glob("shard_*.safetensors"))


def test_in_float32_a_store_gives_what_the_stream_gives_bit_for_bit(stream, tmp_path):
    stored = ShardStream(write_shards(stream, tmp_path, "float32"))
    assert len(stored) == len(stream) == 3
    for number, portion in enumerate(stream):
        for block, vectors in portion.items():
            assert torch.equal(stored[number][block], vectors)


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_in_16_bit_it_gives_the_rounded_numbers(stream, tmp_path, dtype, error):
    stored = ShardStream(write_shards(stream, tmp_path, dtype))[0]["mid.0"]
    torch.testing.assert_close(stored.float(), stream[0]["mid.0"], rtol=error, atol=1e-6)


def test_several_passes_mix_anew_each_time(stream, tmp_path):
    stored = ShardStream(write_shards(stream, tmp_path), passes=2)
    assert len(stored) == 6
    first, again = stored[0]["mid.0"], stored[3]["mid.0"]
    assert not torch.equal(first, again) and torch.equal(first.sort(0).values, again.sort(0).values)


def test_finished_shards_are_not_made_again_and_a_missing_one_is(stream, tmp_path, monkeypatch):
    write_shards(stream, tmp_path)
    contents = [path.read_bytes() for path in shards_of(tmp_path)]
    shards_of(tmp_path)[1].unlink()
    made, in_order = [], stream.in_order
    monkeypatch.setattr(stream, "in_order", lambda number: made.append(number) or in_order(number))
    write_shards(stream, tmp_path)
    assert made == [1] and [path.read_bytes() for path in shards_of(tmp_path)] == contents


def test_a_shard_cut_short_is_named_and_made_again(stream, tmp_path):
    write_shards(stream, tmp_path)
    path = shards_of(tmp_path)[2]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        ValueError, match="shard_00002.safetensors is cut short or changed .*remove it and harvest again"
    ):
        ShardStream(tmp_path)[2]
    write_shards(stream, tmp_path)
    assert len(ShardStream(tmp_path)[2]["mid.0"]) == 64


def test_a_missing_and_a_foreign_shard_are_named(stream, pipe, tmp_path):
    write_shards(stream, tmp_path / "own")
    other = TrainingStream(pipe, PROMPTS, ["mid.0", "up.0.1"], CallSettings(1, 0.0, 4, 2), buffer=150)
    write_shards(other, tmp_path / "other")
    shards_of(tmp_path / "own")[0].unlink()
    with pytest.raises(ValueError, match="shard_00000.safetensors is missing"):
        ShardStream(tmp_path / "own")[0]
    shards_of(tmp_path / "other")[0].rename(tmp_path / "own" / "shard_00000.safetensors")
    with pytest.raises(ValueError, match="its hash is not the manifest's"):
        ShardStream(tmp_path / "own")[0]


def test_a_folder_of_another_stream_or_dtype_is_refused(stream, tmp_path):
    write_shards(stream, tmp_path)
    with pytest.raises(
        ValueError, match=r'other shards, of which dtype is "float16" \(asked: "float32"\): use another folder'
    ):
        write_shards(stream, tmp_path, "float32")


def test_vectors_beyond_float16_are_refused(stream, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "in_order", lambda number: {"mid.0": torch.full((2, 3), 1e5)})
    with pytest.raises(
        ValueError, match=r"shard 0: an update vector of mid.0 exceeds torch.float16's range: store them as"
    ):
        write_shards(stream, tmp_path)
    assert not shards_of(tmp_path)


def test_a_full_disk_is_found_before_it_is_full(stream, tmp_path, monkeypatch):
    monkeypatch.setattr("sae_lib.cache.space.shutil.disk_usage", lambda path: namedtuple("usage", "free")(100))
    with pytest.raises(OSError, match=r"the rest of the shards needs .* GB and 1e-07 GB are free: free some"):
        write_shards(stream, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_manifest_is_refused(stream, tmp_path):
    write_shards(stream, tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"shards": {}}))
    with pytest.raises(ValueError, match="manifest.json is damaged"):
        ShardStream(tmp_path)
    with pytest.raises(
        FileNotFoundError, match="no manifest.json in .*give a folder that `python -m sae_lib harvest` wrote"
    ):
        ShardStream(tmp_path / "nothing")


def test_an_unknown_dtype_is_refused(stream, tmp_path):
    with pytest.raises(ValueError, match="unknown dtype 'int8'; choose one of float32, float16, bfloat16"):
        write_shards(stream, tmp_path, "int8")


def test_several_processes_are_refused_since_each_holds_only_its_own_blocks(stream, tmp_path, monkeypatch):
    monkeypatch.setattr("sae_lib.activations.shards.rank_and_size", lambda: (1, 2))
    with pytest.raises(ValueError, match="a store is written by one process: start the harvest without torchrun"):
        write_shards(stream, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_room_is_asked_for_the_missing_shards_only(stream, tmp_path, monkeypatch):
    write_shards(stream, tmp_path, "float32")
    size = shards_of(tmp_path)[0].stat().st_size
    shards_of(tmp_path)[0].unlink()
    monkeypatch.setattr("sae_lib.cache.space.shutil.disk_usage", lambda path: namedtuple("usage", "free")(2 * size))
    write_shards(stream, tmp_path, "float32")
    assert len(shards_of(tmp_path)) == 3
