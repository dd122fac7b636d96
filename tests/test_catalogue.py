import pytest
import torch

from sae_lib import catalogue as catalogue_module
from sae_lib.blocks import PAPER_BLOCKS
from sae_lib.catalogue import BETAS, TOP, Catalogue
from sae_lib.features import FeatureId
from sae_lib.painting import Edit, Layer, Painter


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """Of 12 pictures, with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_LIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(catalogue_module.PICTURES, "smoke", 12)
        catalogue = Catalogue(Painter("smoke"))
        catalogue.prepare()
        yield catalogue


@pytest.fixture(scope="module")
def best(catalogue):
    return max(catalogue.rows, key=lambda row: row.score)


def test_each_feature_of_the_four_saes_has_a_row(catalogue):
    assert [row.id for row in catalogue.rows] == [FeatureId(b, i) for b in PAPER_BLOCKS for i in range(512)]
    assert all(0 <= row.firing_rate <= 1 and row.score <= 1 for row in catalogue.rows)
    assert all(bool(row.meaning) == (row.firing_rate > 0) for row in catalogue.rows)


def test_ten_features_fire_at_each_position(catalogue):
    for block in PAPER_BLOCKS:
        rates = [row.firing_rate for row in catalogue.rows if row.id.block == block]
        assert 9 < sum(rates) <= 10 + 1e-4  # ReLU may drop some of the ten


def test_the_top_pictures_are_those_of_the_highest_mean_activation(catalogue, best):
    rows, maps = catalogue.top_pictures(best.id)
    values, indices = catalogue.activations(best.id.block)
    means = torch.where(indices == best.id.feature, values, 0).sum((1, 2)) / 64
    assert rows == means.argsort(descending=True)[: len(rows)].tolist() and len(rows) <= TOP
    torch.testing.assert_close(maps.mean((1, 2)), means[rows])


def test_a_card_shows_an_icon_its_top_pictures_and_a_strip(catalogue, best):
    panel = catalogue.panel(best.id)
    assert panel.icon.shape == (3, 64, 64) and panel.strip.shape == (len(BETAS), 3, 64, 64)
    assert 1 <= len(panel.top) <= TOP
    assert catalogue.panel(best.id) is panel


def test_a_card_of_a_feature_that_never_fired_says_so(catalogue):
    dead = next(row.id for row in catalogue.rows if not row.firing_rate)
    with pytest.raises(ValueError, match=f"{dead} is active in none of the 12 pictures"):
        catalogue.panel(dead)
    with pytest.raises(ValueError, match="there is no feature up.0.1/512: blocks are down.2.1"):
        catalogue.panel(FeatureId("up.0.1", 512))


def test_features_are_found_by_number_block_word_and_clip(catalogue, best):
    assert catalogue.search(f" {best.id} ") == [best.id]
    assert catalogue.search("17") == [FeatureId(block, 17) for block in PAPER_BLOCKS]
    assert {each.block for each in catalogue.search("mid.0", 30)} == {"mid.0"}
    value = best.meaning.split()[0]
    assert catalogue.search(value.upper())[0] == best.id
    assert all(value in catalogue.row(each).meaning for each in catalogue.search(value, 3))
    assert catalogue.search("") == [row.id for row in sorted(catalogue.rows, key=lambda row: -row.score)[:40]]
    assert 0 < len(catalogue.search("a purple heart on the left", 5)) <= 5  # no meaning has all these words
    assert catalogue.search("сердце/99999") == []


def test_what_fires_in_a_picture_and_at_a_position(catalogue):
    read = catalogue.painter.read(Edit("a red heart at sea"))
    whole, here = catalogue.firing(read, limit=3), catalogue.firing(read, (3, 4), limit=100)
    assert len(whole) == 3 and all(0 < each.share <= 1 and each.strength > 0 for each in whole)
    active = {FeatureId(b, i) for b, maps in read.items() for i in maps[:, 3, 4].nonzero().flatten().tolist()}
    assert {each.id for each in here} == active
    assert [each.strength for each in here] == sorted((each.strength for each in here), reverse=True)
    with pytest.raises(ValueError, match=r"there is no cell \(8, 0\): the grid is 8 x 8"):
        catalogue.firing(read, (8, 0))


def test_a_painter_starts_with_a_well_read_feature_that_shows_and_an_empty_mask(catalogue):
    edit = catalogue.first_edit
    (layer,) = edit.layers
    ranked = sorted(catalogue.rows, key=lambda row: -row.score)
    assert edit.prompt == catalogue.prompts[0] and layer.mask == ((0.0,) * 8,) * 8
    assert catalogue.row(layer.feature).score >= ranked[20].score
    drawn = catalogue.painter.draw(Edit(edit.prompt, layers=(Layer(layer.feature),)))
    assert (drawn.after - drawn.before).abs().mean() > 5 / 255


def test_a_reading_that_is_broken_off_leaves_nothing_and_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path))
    monkeypatch.setitem(catalogue_module.PICTURES, "smoke", 2)

    def stop(done, count):
        assert (done, count) == (0, 2)
        raise KeyboardInterrupt

    catalogue = Catalogue(Painter("smoke"))
    with pytest.raises(KeyboardInterrupt):
        catalogue.prepare(stop)
    assert [path.suffix for path in (tmp_path / "artefacts").iterdir()] == [".lock"]
    assert catalogue.prepare().is_dir() and catalogue.prepare(stop) == catalogue.prepare()


def test_without_a_judge_features_have_no_meaning(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path))
    monkeypatch.setitem(catalogue_module.PICTURES, "rehearsal", 2)
    catalogue = Catalogue(Painter("sdxl", "random/16"))
    assert {(row.meaning, row.score) for row in catalogue.rows} == {("", 0.0)}
    assert catalogue.panel(catalogue.first_edit.layers[0].feature).strip.shape[0] == len(BETAS)
