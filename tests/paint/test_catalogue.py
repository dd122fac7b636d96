import pytest
import torch

from sae_lib.assets import Assets
from sae_lib.features import reading
from sae_lib.features.feature import FeatureId
from sae_lib.features.writing import STRENGTHS, Written
from sae_lib.paint.catalogue import (
    BETAS,
    CLEAR,
    NEVER_FIRED,
    NO_CLEAR_MEANING,
    TOP,
    Catalogue,
    Hits,
    Row,
    contrast,
    in_order_of_use,
)
from sae_lib.paint.edits import Edit
from sae_lib.paint.painter import Painter
from sae_lib.pocket.captions import unlearnt_words


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """Of 12 pictures, with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_LIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(reading.PICTURES, "smoke", 12)
        catalogue = Catalogue(Painter(Assets("smoke")))
        catalogue.prepare()
        yield catalogue


@pytest.fixture(scope="module")
def best(catalogue):
    return max(catalogue.rows, key=lambda row: row.reads)


def test_each_feature_of_all_blocks_has_a_row(catalogue):
    saes = catalogue.assets.saes()
    assert [row.id for row in catalogue.rows] == [FeatureId(b, i) for b, sae in saes.items() for i in range(sae.n_f)]
    assert all(0 <= row.firing_rate <= 1 and row.reads <= 1 for row in catalogue.rows)
    assert all(bool(row.meaning) == (row.firing_rate > 0) for row in catalogue.rows)


def test_k_features_fire_at_each_position(catalogue):
    for block, sae in catalogue.assets.saes().items():
        rates = [row.firing_rate for row in catalogue.rows if row.id.block == block]
        assert sae.k - 1 < sum(rates) <= sae.k + 1e-4  # ReLU may drop some of them


def test_the_top_pictures_are_those_of_the_highest_mean_activation(catalogue, best):
    rows, maps = catalogue.top_pictures(best.id)
    means = catalogue.reading.means(best.id.block)[:, best.id.feature]
    assert rows == means.argsort(descending=True)[: len(rows)].tolist() and len(rows) <= TOP
    torch.testing.assert_close(maps.mean((1, 2)), means[rows])
    assert maps.shape[1:] == (catalogue.assets.grid(best.id.block),) * 2


def test_a_card_shows_an_icon_its_top_pictures_and_a_strip(catalogue, best):
    panel = catalogue.panel(best.id)
    assert panel.icon.shape == (3, 64, 64) and panel.strip.shape == (len(BETAS), 3, 64, 64)
    assert 1 <= len(panel.top) <= TOP
    assert catalogue.panel(best.id) is panel


def test_cards_that_are_drawn_together_are_those_of_one_at_a_time(catalogue):
    features = [catalogue.live(block)[0].id for block in ("up.1.2", "up.0.1", "up.1.2")]
    together = catalogue.panels(features)
    for feature, panel in zip(features, together, strict=True):
        alone, close = catalogue.panel(feature), {"rtol": 0, "atol": 1e-4}
        torch.testing.assert_close(panel.icon, alone.icon, **close)
        torch.testing.assert_close(panel.strip, alone.strip, **close)
        assert torch.equal(panel.top, alone.top)
    (panel,) = catalogue.panels(features[:1], betas=(0.0, 5.0), gammas=(1.0, 0.5), top=2)
    assert len(panel.strip) == len(panel.icons) == 2 and len(panel.top) <= 2
    torch.testing.assert_close(panel.strip[0], catalogue.pictures[panel.rows[0]], rtol=0, atol=0.5 / 255 + 1e-4)


def test_icons_of_a_chosen_block_differ_from_feature_to_feature(catalogue):
    icons = torch.stack([panel.icon for panel in catalogue.panels([row.id for row in catalogue.live("up.1.2")[:6]])])
    apart = (icons[:, None] - icons).abs().mean((2, 3, 4))[~torch.eye(6, dtype=torch.bool)]
    assert apart.mean() > 5 / 255


def test_a_card_of_a_feature_that_never_fired_says_so(catalogue):
    dead = next(row.id for row in catalogue.rows if not row.firing_rate)
    with pytest.raises(ValueError, match=f"{dead} is active in none of the 12 pictures"):
        catalogue.panel(dead)
    with pytest.raises(ValueError, match=r"there is no feature up.0.1/9999: up.0.1 has \d+, numbered from 0"):
        catalogue.panel(FeatureId("up.0.1", 9999))
    with pytest.raises(ValueError, match="there is no feature mid.0/1: blocks are up.1.2, up.0.1"):
        catalogue.panel(FeatureId("mid.0", 1))


def test_features_are_found_by_number_block_word_and_clip(catalogue, best):
    assert catalogue.search(f" {best.id} ").features == [best.id]
    assert catalogue.search("17").features == [FeatureId(block, 17) for block in catalogue.assets.blocks]
    assert {each.block for each in catalogue.search("up.1.1", 30).features} == {"up.1.1"}
    value = best.meaning.split()[0]
    of_value = in_order_of_use((row for row in catalogue.rows if value in row.meaning), catalogue.written)
    found = catalogue.search(value.upper(), 99)
    assert found.features == [row.id for row in of_value if row.clear] and best.id in found.features
    assert found.weak[: len(of_value) - len(found.features)] == [row.id for row in of_value if not row.clear]
    assert catalogue.search(value, 1) == Hits(found.features[:1], [], [])
    assert catalogue.search("").features == [row.id for row in in_order_of_use(catalogue.rows, catalogue.written)[:40]]
    assert 0 < len(catalogue.search("a heart next to a square", 5).weak) <= 5  # no meaning has all these words
    assert catalogue.search(f"a {value} thing").features == found.features


def test_words_that_the_model_never_learnt_are_named_and_find_nothing(catalogue, best):
    assert catalogue.search("сердце/99999") == Hits([], [], []) and catalogue.search("сердце").unlearnt == ["сердце"]
    assert catalogue.search("Cat, cats") == Hits([], [], ["cat", "cats"])
    known = best.meaning.split()[0]
    assert catalogue.search(f"cat {known}") == catalogue.search(known)._replace(unlearnt=["cat"])
    assert catalogue.unlearnt("colour up.0.1 nig closed eye up.1") == []
    assert catalogue.unlearnt("nug") == ["nug"] and unlearnt_words("colour, red!") == ["colour"]


def test_a_feature_that_reads_no_value_well_is_called_after_none():
    says = [
        Row(FeatureId("up.1.2", 0), rate, meaning, reads).label
        for rate, meaning, reads in (
            (0.1, "red (colour)", CLEAR),
            (0.1, "red (colour)", CLEAR - 0.01),
            (0.0, "", 0.0),
            (0.1, "", 0.0),
        )
    ]
    assert says == ["red (colour)", NO_CLEAR_MEANING, NEVER_FIRED, ""]


def test_how_well_a_feature_draws_is_the_judges_rise_minus_that_of_random_features(catalogue):
    draws = {row.id: row.draws for row in catalogue.rows if row.draws is not None}
    assert draws == {feature: written.rise for feature, written in catalogue.written.items()} != {}


def test_those_that_write_come_first_then_the_untried_then_those_that_wrote_nothing_each_group_by_its_number():
    scores = {0: 0.9, 1: 0.8, 2: 0.3, 3: 0.5, 4: 0.6, 5: 0.7, 6: 0.2}
    rows = [Row(FeatureId("up.1.2", number), 0.1, "night (background)", score) for number, score in scores.items()]
    tried = {0: (0.0, 0.0, 0.0), 1: (1.0, 9.0, -0.5), 2: (0.5, 1.0, 0.25), 5: (-0.5, 0.0, -0.5), 6: (0.5, 1.0, 0.25)}
    written = {FeatureId("up.1.2", number): Written(*found, 5.0) for number, found in tried.items()}
    ordered = [row.id.feature for row in in_order_of_use(rows, written)]
    assert ordered == [2, 6, 1, 4, 3, 0, 5]
    assert [row.id.feature for row in in_order_of_use(rows, {})] == [0, 1, 5, 4, 3, 2, 6]


def test_what_was_tried_again_counts_for_more_than_the_first_try(catalogue):
    strengths, again = catalogue._tries
    assert set(catalogue.written) == set(strengths.by_feature) and again
    assert all(catalogue.written[each.id] == found for each, found in again.items())


def test_what_fires_in_a_picture_and_at_a_position_of_each_blocks_own_grid(catalogue):
    read = catalogue.painter.read(Edit("a red heart at sea"))
    whole, here = catalogue.firing(read, limit=3), catalogue.firing(read, (7, 9), limit=100)
    assert len(whole) == 3 and all(0 < each.share <= 1 and each.strength > 0 for each in whole)
    assert {maps.shape[-1] for maps in read.values()} == {8, 16}
    below = {block: maps[:, 7, 9] if maps.shape[-1] == 16 else maps[:, 3, 4] for block, maps in read.items()}
    assert {each.id for each in here} == {
        FeatureId(b, i) for b, at in below.items() for i in at.nonzero().flatten().tolist()
    }
    assert [each.strength for each in here] == sorted((each.strength for each in here), reverse=True)
    with pytest.raises(ValueError, match=r"there is no cell \(16, 0\): the finest grid is 16 x 16"):
        catalogue.firing(read, (16, 0))


def test_contrast_is_the_change_inside_a_mask_less_that_outside():
    before, after = torch.zeros(3, 2, 2), torch.tensor([[0.5, 0.1], [0.1, 0.1]]).expand(3, 2, 2)
    assert contrast(before, after, ((1.0, 0.0), (0.0, 0.0))) == pytest.approx(0.4)
    assert contrast(before, after) == pytest.approx(0.2)


def test_a_block_is_begun_with_one_of_its_best_read_features(catalogue):
    assert list(catalogue.best) == list(catalogue.assets.blocks)
    for block, row in catalogue.best.items():
        assert row in catalogue.live(block) and catalogue.strength(block) in STRENGTHS
        assert (
            row.reads >= sorted(each.reads for each in catalogue.live(block))[-2]
        )  # of the two that are tried at this scale


def test_a_stroke_covers_the_objects_for_a_background_the_rest_and_for_a_style_all(catalogue):
    picture, meanings = catalogue.pictures[0], ("red (colour)", "night (background)", "cartoon (style)")
    over, around, everywhere = (
        catalogue.where(picture, Row(FeatureId("up.1.2", 0), 0.1, meaning, 0.5)) for meaning in meanings
    )
    assert everywhere is None and 0 < sum(map(sum, over)) < 256
    assert torch.equal(torch.tensor(over) + torch.tensor(around), torch.ones(16, 16))


def test_a_painter_starts_with_an_empty_mask_and_the_feature_whose_stroke_shows_most(catalogue):
    edit = catalogue.first_edit
    (layer,) = edit.layers
    side = catalogue.assets.grid(layer.feature.block)
    assert edit.prompt == catalogue.prompts[0] and layer.mask == ((0.0,) * side,) * side
    row = catalogue.row(layer.feature)
    assert row in catalogue.best.values()
    before = catalogue.painter.draw(Edit(edit.prompt)).before
    after = catalogue.painter.draw(
        Edit(edit.prompt, layers=(catalogue.brush(row, catalogue.where(before, row)),))
    ).after
    assert contrast(before, after, catalogue.where(before, row)) > 5 / 255


def test_a_reading_that_is_broken_off_leaves_nothing_and_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path))
    monkeypatch.setitem(reading.PICTURES, "smoke", 2)

    def stop(done, count):
        assert (done, count) == (0, 2)
        raise KeyboardInterrupt

    catalogue = Catalogue(Painter(Assets("smoke")))
    with pytest.raises(KeyboardInterrupt):
        catalogue.prepare(stop)
    assert [path.suffix for path in (tmp_path / "artefacts").iterdir()] == [".lock"]
    assert catalogue.prepare().is_dir() and catalogue.prepare(stop) == catalogue.prepare()


def test_without_a_judge_features_have_no_meaning(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path))
    monkeypatch.setitem(reading.PICTURES, "rehearsal", 2)
    catalogue = Catalogue(Painter(Assets("sdxl", "random/16")))
    assert {(row.meaning, row.reads) for row in catalogue.rows} == {("", 0.0)} and catalogue.written == {}
    assert catalogue.panel(catalogue.first_edit.layers[0].feature).strip.shape[0] == len(BETAS)
