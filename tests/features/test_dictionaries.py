"""Dictionaries of a small run: as sparse as they say, in the pictures that they say, and trained by one recipe."""

import pytest
import torch

from sae_lib.assets import Assets
from sae_lib.features.dictionaries import BLANK, DENSE, ELSEWHERE, FROZEN, LINEAR, NAMES, SANITY, Dictionaries
from sae_lib.features.reading import Reading, Renders

BLOCK = "up.1.2"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One block of 16 x 16 cells, few prompts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_LIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        assets = Assets("smoke", blocks=BLOCK)
        yield Dictionaries(assets, Reading(assets), prompts=24)


def test_all_but_the_dense_one_have_at_most_k_units_active_per_cell(made):
    k, rows = made.assets.saes()[BLOCK].k, torch.tensor([0, 3, 8])
    most = {name: (made.units(name, BLOCK)(rows) > 0).sum(-1).max().item() for name in NAMES}
    assert most.pop(DENSE) > k and max(most.values()) == k
    with pytest.raises(ValueError, match="no dictionary 'pixels'; there are SAE, "):
        made.units("pixels", BLOCK)


def test_features_elsewhere_are_those_of_other_pictures_of_the_same_half(made):
    rows = made.reading.halves[1]
    own, other = (made.units(name, BLOCK)(rows).sum((1, 2)) for name in ("SAE", ELSEWHERE))
    assert torch.equal(own.sort().values, other.sort().values) and (own != other).any()


def test_the_captured_updates_are_those_that_the_reading_encoded(made):
    codes = made.assets.saes()[BLOCK].encode(made.updates[BLOCK].float())
    torch.testing.assert_close(codes.sum(-1), made.reading.activations(BLOCK).sum(-1), rtol=0.02, atol=0.02)
    assert not torch.equal(made.blank_updates[BLOCK], made.updates[BLOCK])


def test_the_trained_controls_share_a_recipe_and_only_what_is_named_differs(made):
    sizes = {(each[BLOCK].k, each[BLOCK].n_f) for each in (*made.seeds, *(made.saes[name] for name in SANITY))}
    assert len(made.seeds) == 3 and len(sizes) == 1
    began = made.saes["SAE, trained here"][BLOCK]
    frozen = {part: getattr(made.saes[name][BLOCK], part).weight for name, part in FROZEN.items()}
    assert all(not torch.equal(weight, getattr(began, part).weight) for part, weight in frozen.items())


def test_meanings_comparison_probes_and_stability_have_a_number_for_each_unit_or_value(made):
    _, meanings = made.meanings("SAE", permutations=20)
    live = meanings[BLOCK]["live"]
    assert {len(each) for each in meanings[BLOCK].values()} == {len(live)}
    assert meanings[BLOCK]["p"].min() >= 1 / 21
    _, scores = made.scores_on_renders(Renders(made.assets, 4), 499, permutations=20)
    assert [len(scores[whose][BLOCK]) for whose in ("exact", "judge")] == [len(live)] * 2
    _, count, compared = made.compare()
    assert set(compared[BLOCK]) == set(NAMES) and 1 <= count[BLOCK] <= len(live)
    probes = made.probe(["SAE"], (1, 2))
    assert set(probes[BLOCK]) == {LINEAR, "SAE, 1", "SAE, 2"}
    assert probes[BLOCK][LINEAR][:, 0].mean() > compared[BLOCK][BLANK][:, 0].mean()
    _, stability = made.stability()
    assert all(each[BLOCK]["all"].max() <= 1 + 1e-5 for each in stability.values())
    assert len(stability["trained"][BLOCK]["score"]) == len(stability["trained"][BLOCK]["rate"])
