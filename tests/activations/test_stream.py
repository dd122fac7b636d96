import pytest
import torch

from sae_lib.activations.denoising import CallSettings, stream_updates
from sae_lib.activations.stream import PermutedStream, TrainingStream, positions_per_step
from sae_lib.activations.updates import to_vectors

PROMPTS = ["a red circle", "a blue square", "a green star"]
ONE_STEP = CallSettings(steps=1, guidance_scale=0.0, seed=7, batch_size=2)
TWO_STEPS = CallSettings(steps=2, guidance_scale=0.0, seed=7, batch_size=2)


def stream(pipe, settings=ONE_STEP, **arguments):
    return TrainingStream(pipe, PROMPTS, ["mid.0", "up.0.1"], settings, **arguments)


def rows(portions, block="mid.0"):
    return torch.cat([portion[block] for portion in portions])


def in_any_order(vectors):
    return vectors[vectors[:, 0].argsort()]


def test_a_prompt_has_as_many_vectors_a_step_as_the_block_has_positions(pipe):
    assert (positions_per_step(pipe, "mid.0"), positions_per_step(pipe, "up.1.2")) == (64, 256)
    assert stream(pipe, TWO_STEPS)[0]["mid.0"].shape == (3 * 2 * 64, 128)


def test_vectors_stand_in_the_order_prompt_step_position(pipe):
    wanted = [updates["mid.0"] for _, updates in stream_updates(pipe, PROMPTS, ["mid.0"], TWO_STEPS)]
    wanted = to_vectors(torch.cat(wanted, 1).transpose(0, 1))
    assert torch.equal(stream(pipe, TWO_STEPS).in_order()["mid.0"], wanted)


def test_a_fill_is_mixed_over_prompts(pipe):
    once = stream(pipe)
    ordered, mixed = once.in_order()["mid.0"], rows(once)
    assert torch.equal(in_any_order(mixed), in_any_order(ordered))
    first_prompt = {row[0].item() for row in ordered[:64]}
    assert 8 < sum(row[0].item() in first_prompt for row in mixed[:64]) < 40  # 21 of 64 if well mixed


@pytest.mark.parametrize(("buffer", "sizes"), [(640_000, [192]), (150, [128, 64]), (128, [128, 64])])
def test_a_pass_has_fills_of_at_most_the_buffer_s_vectors(pipe, buffer, sizes):
    read = stream(pipe, passes=2, buffer=buffer)
    assert [len(portion["mid.0"]) for portion in read] == 2 * sizes
    once = torch.cat([read.in_order(number)["mid.0"] for number in range(len(sizes))])
    torch.testing.assert_close(once, stream(pipe).in_order()["mid.0"], atol=1e-5, rtol=1e-5)


def test_several_passes_of_one_fill_run_the_model_once_and_reorder_each_time(pipe):
    calls = []
    handle = pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        thrice = [portion["mid.0"] for portion in stream(pipe, passes=3)]
    finally:
        handle.remove()
    assert len(calls) == 2  # three prompts in batches of two
    assert all(torch.equal(in_any_order(part), in_any_order(thrice[0])) for part in thrice)
    assert not torch.equal(thrice[0], thrice[1]) and not torch.equal(thrice[1], thrice[2])


@pytest.mark.parametrize("buffer", [640_000, 64])
def test_a_fill_made_again_is_the_same_and_another_seed_s_order_another(pipe, buffer):
    read, again = (stream(pipe, passes=2, buffer=buffer) for _ in range(2))
    number = len(read) - 1
    assert torch.equal(read[number]["mid.0"], again[number]["mid.0"])
    assert not torch.equal(read[number]["mid.0"], stream(pipe, passes=2, buffer=buffer, seed=1)[number]["mid.0"])
    assert read.description == again.description != stream(pipe, passes=2, buffer=buffer, seed=1).description


def test_blocks_of_one_prompt_and_position_stay_together(pipe):
    read = stream(pipe, passes=2)
    ordered, mixed = read.in_order(), read[1]
    place = {row[0].item(): number for number, row in enumerate(ordered["mid.0"])}
    order = [place[row[0].item()] for row in mixed["mid.0"]]
    assert torch.equal(mixed["up.0.1"], ordered["up.0.1"][order])


@pytest.mark.parametrize("buffer", [640_000, 64])
def test_no_more_vectors_are_given_out_than_asked_for(pipe, buffer):
    few = stream(pipe, passes=2, vectors=100, buffer=buffer)
    assert len(rows(few)) == 200
    first = stream(pipe).in_order()["mid.0"][:100]
    torch.testing.assert_close(in_any_order(rows(few)[:100]), in_any_order(first), atol=1e-5, rtol=1e-5)


def test_the_permuted_stream_keeps_the_values_of_a_dimension_and_unties_dimensions(pipe):
    plain, permuted = rows(stream(pipe)), rows(PermutedStream(stream(pipe)))
    torch.testing.assert_close(permuted.sort(0).values, plain.sort(0).values)
    spread = [torch.linalg.svdvals(x - x.mean(0))[0] for x in (plain, permuted)]
    assert spread[1] < spread[0]


def test_a_fill_that_is_not_there_is_refused(pipe):
    with pytest.raises(IndexError, match="portion 1 of 1"):
        stream(pipe)[1]


@pytest.mark.parametrize("arguments", [{"prompts": []}, {"passes": 0}])
def test_a_stream_of_nothing_is_refused(pipe, arguments):
    values = {"prompts": PROMPTS, "blocks": ["mid.0"], "settings": ONE_STEP, **arguments}
    with pytest.raises(ValueError, match="wanted at least one of each"):
        TrainingStream(pipe, **values)


def test_more_vectors_than_the_machine_can_hold_are_refused(pipe, monkeypatch):
    monkeypatch.setattr("sae_lib.cache.space._installed", lambda _: 10_000)
    with pytest.raises(MemoryError, match="take a smaller buffer"):
        stream(pipe)[0]


MIXED = ["mid.0", "up.1.2"]


def test_blocks_of_another_level_have_more_vectors_of_fewer_dimensions(pipe):
    read = TrainingStream(pipe, PROMPTS, MIXED, ONE_STEP)
    assert {block: list(x.shape) for block, x in read[0].items()} == {"mid.0": [3 * 64, 128], "up.1.2": [3 * 256, 64]}
    assert torch.equal(read.in_order()["mid.0"], stream(pipe).in_order()["mid.0"])


@pytest.mark.parametrize(("vectors", "counts"), [(None, (192, 768)), (100, (100, 100)), (160, (160, 160))])
def test_each_block_of_another_level_gives_at_most_as_many_vectors_as_are_asked_for(pipe, vectors, counts):
    read = TrainingStream(pipe, PROMPTS, MIXED, ONE_STEP, vectors=vectors, buffer=512)
    assert tuple(len(rows(read, block)) for block in MIXED) == counts
    assert all(len(portion["up.1.2"]) <= 512 for portion in read)
