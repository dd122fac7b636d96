"""One prompt's features, in the shipped models."""

import matplotlib.pyplot as plt
import pytest
import torch

from sae_lib.activations.drawing import draw_pictures
from sae_lib.assets import MODELS, Assets
from sae_lib.companion.case_study import (
    draw_alone,
    draw_modulated,
    noise_seed,
    show_features,
    show_maps,
    study_prompt,
)
from sae_lib.companion.style import use_house_style
from sae_lib.features.interventions import intervene, modulate

PROMPT = "a red star at sea"


@pytest.fixture(scope="module")
def assets():
    return Assets("smoke", blocks="up.0.1,up.1.2")


@pytest.fixture(scope="module")
def study(assets):
    return study_prompt(assets, "up.1.2", PROMPT, count=4)


def test_the_top_features_are_those_of_the_highest_mean_activation(assets, study):
    everything = study_prompt(assets, "up.1.2", PROMPT, features=range(assets.saes()["up.1.2"].n_f))
    means = everything.maps.mean((1, 2))
    assert [each.feature for each in study.ids] == means.topk(4).indices.tolist()
    assert (study.maps == everything.maps[means.topk(4).indices]).all() and study.maps.shape[1:] == (16, 16)


def test_no_feature_that_is_silent_in_the_picture_is_a_top_feature(assets):
    found = study_prompt(assets, "up.1.2", PROMPT, count=1_000)
    assert (found.maps.mean((1, 2)) > 0).all() and len(found.ids) < assets.saes()["up.1.2"].n_f


def test_beta_zero_leaves_the_picture_as_it_was_bit_for_bit(assets, study):
    alone = study._replace(ids=study.ids[:1], maps=study.maps[:1])  # one picture at a time: batches round differently
    assert torch.equal(draw_modulated(assets, alone, [0.0])[0, 0], study.picture)


def test_scaling_by_the_studys_map_is_modulation_within_the_pass(assets, study):
    name, call = assets.call(MODELS[0], noise_seed(assets))
    drawn = draw_modulated(assets, study, [-5.0, 10.0])
    for each, row in zip(study.ids, drawn, strict=True):
        for beta, picture in zip((-5.0, 10.0), row, strict=True):
            with intervene(assets.pipe(name), {"up.1.2": modulate(assets.saes()["up.1.2"], each.feature, beta)}):
                wanted = draw_pictures(assets.pipe(name), [PROMPT], call, [study.noise])[0]
            assert torch.allclose(picture, wanted, atol=1e-4)


def test_an_icon_without_the_feature_is_the_same_for_all_features(assets, study):
    silent, loud = draw_alone(assets, study, [0.0, 1.0]).unbind(1)
    assert torch.equal(silent[0], silent[1]) and not torch.equal(loud[0], loud[1])


def test_the_grids_have_a_panel_for_each_feature_and_strength(study):
    use_house_style()
    fig = show_maps(study, {study.ids[0]: "red"})
    assert [ax.get_title() for ax in fig.axes][:2] == [
        f"Feature {study.ids[0].feature}\nred",
        f"Feature {study.ids[1].feature}",
    ]
    fig = show_features(torch.zeros(4, 2, 3, 8, 8), study, {}, [-5.0, 10.0])
    assert [ax.get_title() for ax in fig.axes[:2]] == ["Strength -5", "Strength 10"] and len(fig.axes) == 8
    assert [ax.get_ylabel() for ax in fig.axes[::2]] == [str(each.feature) for each in study.ids]
    plt.close("all")


def test_another_block_and_a_feature_that_is_not_there_are_refused(assets):
    with pytest.raises(ValueError, match="'mid.0' is none of this run's blocks; choose from up.0.1, up.1.2"):
        study_prompt(assets, "mid.0", PROMPT)
    with pytest.raises(ValueError, match=r"features \[99\] of an SAE with 32: wanted 0 to 31"):
        study_prompt(assets, "up.1.2", PROMPT, features=[99])
