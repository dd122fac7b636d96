import pytest
import torch

from sae_lib.editing.masks import find_mask
from sae_lib.judges import grounding
from sae_lib.judges.grounding import load_grounded_sam


@pytest.fixture(scope="module")
def finder():
    return load_grounded_sam(rehearsal=True)


def test_pictures_are_resized_and_standardised_by_imagenets_mean():
    white = grounding._prepare(torch.ones(3, 32, 32), 64)
    wanted = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]).view(1, 3, 1, 1)
    torch.testing.assert_close(white, wanted.expand(1, 3, 64, 64))


def test_boxes_lie_in_the_picture_and_each_has_an_outline(finder):
    picture = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    boxes = finder.boxes(picture, "red house")
    assert len(boxes) > 0 and 0 <= boxes.min() and boxes.max() <= 1 and (boxes[:, 2:] >= boxes[:, :2]).all()
    masks = finder(picture, "red house")
    assert masks.shape == (len(boxes), 48, 48) and masks.dtype == torch.bool
    assert find_mask(finder, picture, "red house", 4).cells.any()


def test_no_box_above_the_threshold_is_no_instance(finder):
    from dataclasses import replace

    assert len(replace(finder, threshold=1.0)(torch.rand(3, 48, 48), "house")) == 0


def test_models_that_are_not_there_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(grounding, "DINO", str(tmp_path / "nothing"))
    with pytest.raises(ConnectionError, match="find the masks and are not on this machine: download them from the Hub"):
        load_grounded_sam()
