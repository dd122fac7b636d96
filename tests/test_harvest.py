import pytest
import torch

from sae_lib.harvest import TrainingStream, positions_per_step, reshuffled
from sae_lib.transfer import CallSettings, stream_updates
from sae_lib.updates import to_vectors

PROMPTS = ["a red circle", "a blue square", "a green star"]
ONE_STEP = CallSettings(steps=1, guidance_scale=0.0, seed=7, batch_size=2)
TWO_STEPS = CallSettings(steps=2, guidance_scale=0.0, seed=7, batch_size=2)


def stream(pipe, settings=ONE_STEP, **arguments):
    return TrainingStream(pipe, PROMPTS, ["mid.0", "up.0.1"], settings, **arguments)


def rows(chunks, block="mid.0"):
    return torch.cat([chunk[block] for chunk in chunks])


def in_any_order(vectors):
    return vectors[vectors[:, 0].argsort()]


def numbered(vectors=1000):
    return {"mid.0": torch.arange(float(vectors))[:, None], "down.1.0": torch.arange(4.0 * vectors)[:, None]}


def test_a_prompt_has_as_many_vectors_a_step_as_the_block_has_positions(pipe):
    assert positions_per_step(pipe) == 64
    assert rows(stream(pipe, TWO_STEPS).in_order()).shape == (3 * 2 * 64, 128)


def test_vectors_stand_in_the_order_prompt_step_position(pipe):
    wanted = [updates["mid.0"] for _, updates in stream_updates(pipe, PROMPTS, ["mid.0"], TWO_STEPS)]
    wanted = to_vectors(torch.cat(wanted, 1).transpose(0, 1))
    assert torch.equal(rows(stream(pipe, TWO_STEPS).in_order()), wanted)


@pytest.mark.parametrize("buffer", [640_000, 100])
def test_one_pass_gives_every_vector_once_and_mixed_over_prompts(pipe, monkeypatch, buffer):
    monkeypatch.setattr("sae_lib.harvest.BUFFER", buffer)
    once = stream(pipe, vectors=3 * 64)
    ordered, mixed = rows(once.in_order()), rows(once)
    assert torch.equal(in_any_order(mixed), in_any_order(ordered))
    first_prompt = {row[0].item() for row in ordered[:64]}
    if buffer > 192:
        assert 8 < sum(row[0].item() in first_prompt for row in mixed[:64]) < 40  # 21 of 64 if well mixed


def test_several_passes_run_the_pipeline_once_and_reorder_each_time(pipe, monkeypatch):
    calls = []
    handle = pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        thrice = rows(stream(pipe, passes=3)).split(192)
    finally:
        handle.remove()
    assert len(calls) == 2  # three prompts in batches of two
    assert all(torch.equal(in_any_order(part), in_any_order(thrice[0])) for part in thrice)
    assert not torch.equal(thrice[0], thrice[1]) and not torch.equal(thrice[1], thrice[2])


@pytest.mark.parametrize("passes", [1, 2])
def test_a_stream_read_twice_gives_the_same_and_another_seed_another_order(pipe, passes):
    read = stream(pipe, passes=passes)
    assert torch.equal(rows(read), rows(read))
    assert not torch.equal(rows(read), rows(stream(pipe, passes=passes, seed=1)))


def test_blocks_of_one_prompt_and_position_stay_together(pipe):
    read = stream(pipe, passes=2)
    ordered, mixed = list(read.in_order()), list(read)
    place = {row[0].item(): number for number, row in enumerate(rows(ordered, "mid.0"))}
    order = [place[row[0].item()] for row in rows(mixed, "mid.0")]
    assert torch.equal(rows(mixed, "up.0.1"), rows(ordered, "up.0.1")[order])


@pytest.mark.parametrize("passes", [1, 2])
def test_no_more_vectors_are_given_out_than_asked_for(pipe, passes):
    few = rows(stream(pipe, passes=passes, vectors=100))
    assert len(few) == 100 * passes
    first = rows(stream(pipe).in_order())[:100]
    assert torch.equal(in_any_order(few[:100]), in_any_order(first))


def test_the_permuted_stream_keeps_the_values_of_a_dimension_and_unties_dimensions(pipe):
    plain, permuted = rows(stream(pipe)), rows(stream(pipe).permuted())
    torch.testing.assert_close(permuted.sort(0).values, plain.sort(0).values)
    spread = [torch.linalg.svdvals(x - x.mean(0))[0] for x in (plain, permuted)]
    assert spread[1] < spread[0]


@pytest.mark.parametrize("arguments", [{"prompts": []}, {"passes": 0}])
def test_a_stream_of_nothing_is_refused(pipe, arguments):
    values = {"prompts": PROMPTS, "blocks": ["mid.0"], "settings": ONE_STEP, **arguments}
    with pytest.raises(ValueError, match="wanted at least one of each"):
        TrainingStream(pipe, **values)


def test_more_vectors_than_the_machine_can_hold_are_refused(pipe, monkeypatch):
    monkeypatch.setattr("sae_lib.harvest.os.sysconf", lambda name: 100)  # 100 pages of 100 bytes
    with pytest.raises(MemoryError, match="take fewer prompts, or passes=1"):
        next(iter(stream(pipe, passes=2)))


def test_reshuffling_gives_every_vector_in_every_pass_and_blocks_their_share():
    chunks = list(reshuffled(numbered(), passes=2, chunk=1000))
    assert [len(chunk["mid.0"]) for chunk in chunks] == [250] * 8
    assert [len(chunk["down.1.0"]) for chunk in chunks] == [1000] * 8
    for half in (chunks[:4], chunks[4:]):
        assert sorted(rows(half).flatten().tolist()) == list(range(1000))


def test_the_order_of_a_block_does_not_depend_on_the_others():
    alone = {"mid.0": numbered()["mid.0"]}
    assert torch.equal(rows(reshuffled(alone, 2)), rows(reshuffled(numbered(), 2)))
