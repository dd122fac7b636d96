import torch

from sae_lib.judges.attributes import load_judge
from sae_lib.models.prompts import load_pocket_captions
from sae_lib.pocket.statements import count_statements, fulfilled


def test_what_is_fulfilled_adds_up_to_the_counted_statements():
    judge, captions = load_judge("pocket"), load_pocket_captions(3, "held-out")
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    counts = count_statements(judge, pictures, captions).sum(1)
    rights = fulfilled(judge, pictures, captions)
    assert [sum(right) for right in rights] == counts[:, 0].tolist()
    assert [len(right) for right in rights] == counts[:, 1].tolist()
