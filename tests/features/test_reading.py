"""The one reading of held-out pictures, and the object that knows what a scale works with."""

import pytest
import torch

from sae_lib.activations.drawing import draw_pictures
from sae_lib.activations.updates import capture_updates, to_vectors
from sae_lib.assets import MODELS, Assets
from sae_lib.companion.run import Run
from sae_lib.features.feature import FeatureId
from sae_lib.features.meaning import reading_scores
from sae_lib.features.reading import NOISE_SEED, Reading, Renders
from sae_lib.features.writing import draw_icons


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_LIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Assets("smoke", blocks="up.1.2,mid.0")


@pytest.fixture(scope="module")
def reading(assets):
    return Reading(assets)


def test_codes_are_what_the_saes_say_of_the_pictures_as_they_are_drawn(assets, reading):
    _, call = assets.call(MODELS[0], NOISE_SEED)
    with capture_updates(assets.pipe(), assets.blocks) as updates:
        drawn = draw_pictures(assets.pipe(), reading.prompts[: call.batch_size], call, range(call.batch_size))
    assert torch.equal((drawn[:5] * 255).round() / 255, reading.pictures[:5])
    for block, side in (("up.1.2", 16), ("mid.0", 8)):
        wanted = assets.saes()[block].encode(to_vectors(updates[block][0][:5])).unflatten(0, (5, side * side))
        torch.testing.assert_close(reading.activations(block, slice(0, 5)), wanted, atol=1e-4, rtol=1e-3)
        assert torch.equal(reading.maps(block, 3, [2])[0].flatten(), reading.activations(block, [2])[0, :, 3])
        torch.testing.assert_close(reading.means(block)[:5], reading.activations(block, slice(0, 5)).mean(1))
        torch.testing.assert_close(
            reading.shares(block)[:5], (reading.activations(block, slice(0, 5)) > 0).float().mean(1)
        )


def test_scores_are_those_of_each_half_and_live_features_fire_in_both(reading):
    matched, scored = reading.scores["up.1.2"]
    even, odd = reading.halves
    assert torch.equal(scored, reading_scores(reading.activations("up.1.2", odd), reading.truth("up.1.2").take(odd)))
    assert torch.equal(reading.meaning("up.1.2").value, matched.argmax(1))
    live = set(reading.live("up.1.2").tolist())
    fires = [(reading.activations("up.1.2", half) > 0).any(0).any(0) for half in (even, odd)]
    assert live == set((fires[0] & fires[1]).nonzero().flatten().tolist())


def test_each_value_is_scored_by_its_best_feature_of_the_other_half_and_pictures_are_left_out(reading):
    matched, scored = reading.scores["mid.0"]
    best = reading.best_scores["mid.0"]
    assert best.shape == (matched.shape[1], 17)
    wanted = scored.gather(0, matched.argmax(0, keepdim=True))[0]
    clear = (matched == matched.amax(0)).sum(0) == 1  # of equally good ones any may be taken
    torch.testing.assert_close(best[clear, 0].float(), wanted[clear], atol=1e-5, rtol=1e-5)


def test_renders_have_both_truths_at_each_grid_and_updates_of_every_cell(assets):
    renders = Renders(assets, 3)
    assert len(renders) == len(renders.captions) == 3 and set(renders.truths) == {16, 8}
    for grid, (exact, judged) in renders.truths.items():
        assert exact.present.shape == judged.present.shape == (3, grid**2, exact.present.shape[-1])
        assert exact.disagreement(judged).mean() < 0.5 and not exact.disagreement(exact).any()
    updates = renders.updates(499)
    assert updates["up.1.2"].shape[:2] == (3, 256) and updates["mid.0"].shape[:2] == (3, 64)
    assert not torch.equal(updates["mid.0"], renders.updates(99)["mid.0"])


def test_truth_is_given_at_each_block_s_own_grid(reading):
    assert reading.truth("up.1.2").present.shape[1] == 256 and reading.truth("mid.0").present.shape[1] == 64
    assert reading.objects("up.1.2").shape[1:] == (16, 16) and reading.objects("mid.0").flatten(1).any(1).all()


def test_later_captions_are_others_with_noise_of_their_own(assets, reading):
    later = Reading(assets, later=True)
    assert not set(later.prompts) & set(reading.prompts)
    assert not set(later.noise(range(len(later)))) & set(reading.noise(range(len(reading))))


def test_a_second_reading_finds_the_first_in_the_cache(assets, reading, monkeypatch):
    folder = reading.make()
    monkeypatch.setattr(Reading, "_make", None)
    assert Reading(assets).make() == folder


def test_assets_share_loaded_models_among_sets_of_blocks(assets):
    paper = assets.with_blocks("paper")
    assert paper.pipe() is assets.pipe() and list(paper.saes()) == list(paper.blocks) and len(assets.saes()) == 2
    assert paper.identity != assets.identity


def test_assets_take_a_notebook_s_parameters_and_refuse_what_is_not_there():
    run = Run("04_transfer", {"scale": "sdxl", "source": "random/16", "seed": 0, "blocks": "up.0.1", "strength": 5.0})
    assets = run.assets()
    assert assets.blocks == ("up.0.1",) and assets.untrained and assets.sources["base"] == "random/16"
    assert assets.prompt_source == assets.clip_source == "pocket" and not assets.known
    with pytest.raises(ValueError, match="unknown model 'Flux'; choose one of 'Turbo, 1 step'"):
        assets.call("Flux")
    with pytest.raises(ValueError, match="nothing knows what is true of SDXL's pictures"):
        _ = Reading(assets).shows


def test_a_control_reads_the_same_pictures_with_as_many_random_directions(assets, reading):
    control = Reading(assets, control=1)
    assert torch.equal(control.pictures, reading.pictures)
    values, _ = control.codes("up.1.2")
    assert values.shape == reading.codes("up.1.2")[0].shape and control.saes["up.1.2"].n_f == reading.saes["up.1.2"].n_f
    assert not torch.equal(control.saes["up.1.2"].encoder.weight, reading.saes["up.1.2"].encoder.weight)
    assert len(control.live("up.1.2")) > 0 and not torch.equal(control.means("up.1.2"), reading.means("up.1.2"))


def test_icons_of_several_blocks_come_in_the_order_asked_for_and_are_what_each_draws_alone(assets):
    asked = [FeatureId("up.1.2", 3), FeatureId("mid.0", 5), FeatureId("up.1.2", 7)]
    together = draw_icons(assets, asked, [40.0, 2.0, 40.0])
    for each, amount, icon in zip(asked, (40.0, 2.0, 40.0), together, strict=True):
        torch.testing.assert_close(draw_icons(assets, [each], [amount])[0], icon, atol=1e-4, rtol=0)
    assert (together[0] - together[2]).abs().mean() > 0.01
