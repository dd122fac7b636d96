import json

from sae_lib.cache import results
from sae_lib.cache.artefact import ROOT


def test_a_result_is_stored_beside_what_made_it(tmp_path):
    path = tmp_path / "results" / "speed.json"
    results.save_result(path, {"seconds": [1.5]}, "make bench", device="a GPU", rounds=3)
    record = json.loads(path.read_text())
    assert record["result"] == {"seconds": [1.5]}
    assert record["run"]["command"] == "make bench" and record["run"]["commit"] == results.commit_hash()
    assert record["run"]["device"] == "a GPU" and record["run"]["rounds"] == 3


def test_a_small_run_s_result_is_not_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path))
    assert results.result_path("speed", small=True) == tmp_path / "speed_small.json"
    assert results.result_path("speed") == ROOT / "figures" / "results" / "speed.json"
