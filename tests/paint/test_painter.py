import json
import threading
from dataclasses import replace

import pytest
import torch

from sae_lib.activations.drawing import as_image
from sae_lib.assets import FLUX_MODELS, MODELS, Assets
from sae_lib.features.feature import FeatureId
from sae_lib.paint import painter as painting
from sae_lib.paint.edits import Edit, Layer
from sae_lib.paint.painter import Painter
from sae_lib.saes.checkpoints import load_statistics

SIDE = 8
LEFT = tuple((1.0,) * 4 + (0.0,) * 4 for _ in range(SIDE))
FINE_LEFT = tuple((1.0,) * 8 + (0.0,) * 8 for _ in range(16))
PROMPT = "a large red heart at sea"


def usable(block):
    """The first feature of a block that has a unit of strength."""
    return FeatureId(block, (load_statistics("panel", "smoke")[block].mean > 0).nonzero()[0].item())


FIRST, SECOND, FINE = usable("up.0.1"), usable("down.2.1"), usable("up.1.2")


@pytest.fixture(scope="module")
def painter():
    return Painter(Assets("smoke"))


def edit(*layers, **fields):
    return Edit(**{"prompt": PROMPT, "layers": layers or (Layer(FIRST, mask=LEFT),)} | fields)


EDITS = {
    "one feature in a mask": edit(),
    "a mask in shades, everywhere, and a block twice": edit(
        Layer(FIRST, -7.3, tuple(tuple(0.1 * value for value in row) for row in LEFT)), Layer(SECOND), Layer(FIRST, 2.0)
    ),
    "some of four steps": edit(Layer(FIRST, 20.0, LEFT, (1, 3)), model=MODELS[1], seed=7),
    "base": edit(Layer(SECOND, 30.0, LEFT, (0, 2)), model="base", prompt='quotes "and" \\ сердце'),
    "masks of two grids": edit(Layer(FIRST, mask=LEFT), Layer(FINE, 5.0, FINE_LEFT)),
    "an empty mask": edit(Layer(FIRST, mask=((0.0,) * SIDE,) * SIDE)),
    "no layer, empty prompt": Edit(""),
}


@pytest.mark.parametrize("name", EDITS)
def test_the_code_of_an_edit_draws_its_picture_bit_for_bit(name, painter):
    found = {}
    exec(painter.code(EDITS[name]), found)  # noqa: S102
    after = painter.draw(EDITS[name]).after
    assert torch.equal(found["drawn"][0], after)
    assert found["picture"].tobytes() == as_image(after).tobytes()


@pytest.mark.parametrize("blocks", ["", "up.1.2,mid.0"])
def test_the_code_of_a_rehearsal_draws_its_picture_too(blocks):
    rehearsal, found = Painter(Assets("sdxl", "random/16", blocks=blocks)), {}
    one = Edit("a heart", layers=(Layer(FeatureId("mid.0", 3)),))
    exec(rehearsal.code(one), found)  # noqa: S102
    assert torch.equal(found["drawn"][0], rehearsal.draw(one).after)


def test_flux_is_painted_on_and_the_code_of_an_edit_draws_its_picture():
    rehearsal = Painter(Assets("sdxl", "random/16", blocks="double.18,single.3", architecture="flux"))
    side = rehearsal.grids(FLUX_MODELS[0])["double.18"]
    mask = ((1.0,) * side,) * (side // 2) + ((0.0,) * side,) * (side - side // 2)
    strong = Layer(FeatureId("double.18", 3), 1000.0, mask)
    one, four = (Edit("a heart", 3, model, (strong,)) for model in FLUX_MODELS)
    late = replace(four, layers=(replace(strong, steps=(2, 4)),))
    for each in (one, four, late):
        found, drawn = {}, rehearsal.draw(each)
        exec(rehearsal.code(each), found)  # noqa: S102
        assert torch.equal(found["drawn"][0], drawn.after) and not torch.equal(drawn.before, drawn.after)
    assert not torch.equal(rehearsal.draw(four).after, rehearsal.draw(late).after)
    assert {name: maps.shape for name, maps in rehearsal.read(one).items()}["double.18"][1:] == (side, side)


def test_flux_refuses_a_prompt_that_is_too_long_and_the_models_of_sdxl():
    rehearsal = Painter(Assets("sdxl", "random/16", architecture="flux"))
    with pytest.raises(ValueError, match="T5 reads 40: shorten it"):
        rehearsal.draw(Edit("a heart " * 600, model=FLUX_MODELS[0]))
    with pytest.raises(ValueError, match="unknown model 'base'; choose one of 'FLUX, 1 step', 'FLUX, 4 steps'"):
        rehearsal.draw(Edit("a heart", model="base"))


def test_the_code_names_blocks_that_are_not_the_scales_own(painter):
    assert "blocks" not in painter.code(edit()) and "load_saes('panel', 'smoke', device" in painter.code(edit())
    assert "'saes', device=pipe.device, blocks='" in Painter(Assets("smoke", sae_folder="saes")).code(edit())
    other, found = Painter(Assets("smoke", blocks="up.1.2,up.0.1")), {}
    exec(other.code(edit()), found)  # noqa: S102
    assert list(found["saes"]) == ["up.1.2", "up.0.1"] and torch.equal(found["drawn"][0], painter.draw(edit()).after)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_survives_json(name):
    assert Edit.from_json(json.loads(json.dumps(EDITS[name].to_json()))) == EDITS[name]


def test_a_stroke_changes_the_picture_and_undoing_it_restores_it_bit_for_bit():
    painter = Painter(Assets("smoke"))
    blank, once, twice = Edit(PROMPT), edit(), edit(Layer(FIRST, mask=LEFT), Layer(SECOND))
    first = [painter.draw(each).after for each in (blank, once, twice)]
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])
    undone = [painter.draw(each).after for each in (once, blank)]
    anew = [Painter(Assets("smoke")).draw(each).after for each in (once, blank)]
    for kept, drawn, before in zip(undone, anew, first[1::-1], strict=True):
        assert torch.equal(kept, before) and torch.equal(drawn, before)


def test_strength_zero_and_an_empty_mask_change_nothing(painter):
    for layer in (Layer(FIRST, 0.0), Layer(FIRST, mask=((0.0,) * SIDE,) * SIDE)):
        drawn = painter.draw(edit(layer))
        assert torch.equal(drawn.before, drawn.after)


def test_two_painters_and_two_edits_of_one_do_not_disturb_each_other(painter):
    other, blank = Painter(Assets("smoke")), painter.draw(Edit(PROMPT)).after
    other.draw(edit(Layer(SECOND, 40.0)))
    again = Painter(Assets("smoke"))
    again.draw(edit(Layer(FIRST, 40.0)))
    assert torch.equal(again.draw(edit()).before, blank) and torch.equal(other.draw(Edit(PROMPT)).after, blank)


def test_the_last_pictures_are_kept_and_no_more(painter, monkeypatch):
    monkeypatch.setattr(painting, "_KEPT_PICTURES", 3)
    drawn = [painter.draw(edit(seed=seed)) for seed in range(20, 23)]
    assert all(torch.equal(painter.draw(edit(seed=20 + i)).after, each.after) for i, each in enumerate(drawn))
    assert len(painter._pictures) == 3


def test_progress_is_told_before_each_step_and_what_it_raises_ends_the_drawing_without_a_trace(painter):
    told = []

    def on_step(done, count):
        told.append((done, count))
        if done == 5:
            raise KeyboardInterrupt

    one, unet = edit(model=MODELS[1], seed=31), painter.assets.pipe("turbo").unet
    with pytest.raises(KeyboardInterrupt):
        painter.draw(one, on_step)
    assert told == [(done, 8) for done in range(6)]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())
    assert not any(each.seed == 31 for each in painter._pictures)
    assert torch.equal(painter.draw(one).after, Painter(Assets("smoke")).draw(one).after)


def test_what_no_stroke_waits_for_gives_way_to_a_drawing(painter):
    begun, go_on, passed = threading.Event(), threading.Event(), threading.Event()

    def on_step(done, count):
        begun.set()
        assert go_on.wait(60)

    def give_way():
        painter.give_way()
        passed.set()

    threads = [threading.Thread(target=painter.draw, args=(edit(seed=80), on_step)), threading.Thread(target=give_way)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    assert not passed.wait(0.1)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert passed.is_set()


def test_a_long_prompt_is_drawn_and_the_cut_is_told(painter, caplog):
    drawn = painter.draw(Edit("red heart " * 1_000))
    assert drawn.notes == ("The prompt has 2,000 tokens and the model reads 38: the last 1,962 were cut.",)
    assert not caplog.records
    assert torch.equal(drawn.after, painter.draw(Edit("red heart " * 19)).after)


def test_words_that_the_pocket_model_never_learnt_are_named(painter):
    assert painter.draw(Edit("a red heart, and a blue star.")).notes == ()
    assert painter.draw(Edit("")).notes == ()
    assert "never learnt these words: 💚" in painter.draw(Edit("💚")).notes[0]
    (note,) = painter.draw(Edit("a сердце, zebra 红心 of café and tea at sea")).notes
    assert note == "The pocket model never learnt these words: сердце, zebra, 红心, café and 1 more."


@pytest.mark.parametrize(
    "layer, message",
    [
        (
            Layer(FIRST, mask=((1.0,) * 16,) * 16),
            f"{FIRST}: its mask has 16 x 16 cells and the grid of up.0.1 has 8 x 8;",
        ),
        (
            Layer(FINE, mask=LEFT),
            r"has 8 x 8 cells and the grid of up.1.2 has 16 x 16; `Layer.on_grid\(16\)` brings it",
        ),
        (Layer(FeatureId("up.0.1", 9_999)), "feature 9999 of an SAE with"),
        (Layer(FeatureId("up.1.0", 3)), "up.1.0/3: no SAE of block 'up.1.0' is loaded; there are up.1.2, up.0.1"),
        (Layer(FIRST, steps=(0, 2)), r"steps \[0, 2\) were asked for and the call has 1"),
        (Layer(FIRST, steps=(1, 1)), "wanted 0 <= start < end"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence_and_leaves_no_trace(layer, message, painter):
    with pytest.raises(ValueError, match=message):
        painter.draw(edit(layer, seed=40))
    assert torch.equal(painter.draw(Edit(PROMPT)).after, Painter(Assets("smoke")).draw(Edit(PROMPT)).after)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"strength": float("nan")}, "strength nan; wanted a finite number"),
        ({"mask": ((1.0, 0.0), (1.0,))}, "rows are of different lengths"),
        ({"mask": ()}, "rows are of different lengths"),
        ({"mask": ((2.0,),)}, "not between 0 and 1"),
    ],
)
def test_a_layer_that_means_nothing_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Layer(FIRST, **fields)


@pytest.mark.parametrize(
    "told, message",
    [
        ({"model": "Flux"}, "unknown model 'Flux'; choose one of 'Turbo, 1 step', 'Turbo, 4 steps', 'base'"),
        ({"layers": [{"feature": "17"}]}, "'17' names no feature"),
        ({"layers": None}, "no edit can be read from this"),
        ({"seed": None}, "no edit can be read from this"),
    ],
)
def test_an_edit_that_cannot_be_read_is_refused(told, message):
    with pytest.raises(ValueError, match=message):
        Edit.from_json(edit().to_json() | told)


def test_a_gpu_out_of_memory_is_told_in_a_sentence(painter, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(painting, "draw_pictures", full)
    with pytest.raises(MemoryError, match="the GPU ran out of memory while drawing"):
        painter.draw(edit(seed=50))


def test_nothing_is_loaded_before_it_is_needed_and_a_missing_sae_is_told_then(tmp_path):
    painter = Painter(Assets("smoke", sae_folder=str(tmp_path / "gone")))
    assert painter.draw(Edit(PROMPT)).after.shape == (3, 64, 64)
    with pytest.raises(FileNotFoundError, match="no folder of SAEs 'gone'"):
        painter.draw(edit())


def test_a_mask_is_brought_to_another_grid_by_its_nearest_cells():
    layer = Layer(FIRST, mask=((1.0, 0.0), (0.0, 0.5)))
    finer = layer.on_grid(4)
    assert finer.mask == ((1.0, 1.0, 0.0, 0.0),) * 2 + ((0.0, 0.0, 0.5, 0.5),) * 2
    assert finer.on_grid(2) == layer and layer.on_grid(2) is layer and Layer(FIRST).on_grid(4) == Layer(FIRST)


def test_a_thin_stroke_is_not_lost_on_a_coarser_grid():
    column = tuple((0.0, 1.0, 0.0, 0.0) for _ in range(4))
    assert Layer(FINE, mask=column).on_grid(2).mask == ((1.0, 0.0),) * 2


def test_each_mask_gets_the_grid_of_its_features_block(painter):
    grids = painter.grids(MODELS[0])
    assert grids["up.0.1"] == 8 and grids["up.1.2"] == 16 and painter.grids("base") == grids
    fitted = painter.fitted(edit(Layer(FINE, mask=LEFT), Layer(FIRST, mask=FINE_LEFT), Layer(FIRST)))
    assert [each.mask for each in fitted.layers] == [FINE_LEFT, LEFT, None]
    assert not torch.equal(*painter.draw(fitted)[:2])


def test_an_unknown_block_or_chosen_blocks_of_sdxl_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match='unknown block \'up.9\'; choose "chosen", "paper", or codes with commas'):
        Painter(Assets("smoke", blocks="up.9"))
    with pytest.raises(ValueError, match="no blocks were chosen for SDXL: look at the figures of notebook 05"):
        Painter(Assets("sdxl", blocks="chosen"))


def test_the_reading_of_a_picture_is_that_of_the_picture_without_layers(painter):
    read, saes = painter.read(edit()), painter.assets.saes()
    wanted = {block: (sae.n_f, *[painter.assets.grid(block)] * 2) for block, sae in saes.items()}
    assert {block: maps.shape for block, maps in read.items()} == wanted
    plain = painter.read(replace(edit(), layers=()))
    assert all(torch.equal(maps, plain[block]) and (maps > 0).any() for block, maps in read.items())
