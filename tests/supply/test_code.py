"""Nothing that the library or the notebooks read can run code: no pickle, no eval, no shell, no unchecked archive."""

import ast
import subprocess
from pathlib import Path

import pytest

from sae_lib.cache.artefact import ROOT

ALLOWED = {
    ("sae_lib/cache/reach.py", "eval"): "constants of this repository's own modules, without builtins",
    ("notebooks/workshop/lessons.py", "exec"): "this repository's own lessons, while they are built",
    ("notebooks/workshop/kit/unpack.py", "extractall"): "every member is checked before",
}
MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FUNCTIONS = {"eval", "exec", "torch.save", "os.system", "os.popen"}
FUNCTIONS |= {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"}
METHODS = {"extract", "extractall", "read_pickle", "to_pickle"}
ARGUMENTS = {"allow_pickle", "shell"}
"""Of any call, unless they are the word False."""


def words_of(node: ast.expr) -> str:
    """`np.load` as "np.load"; the last word only if what is before it is no name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{node.value.id}.{node.attr}" if isinstance(node.value, ast.Name) else f"?.{node.attr}"
    return ""


def is_word(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def unsafe(tree: ast.AST) -> set[str]:
    """What a module does that could run code which it reads."""
    found, safe_loads = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} == {"UnpicklingError"}:
            continue  # an error to catch reads nothing
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found |= {name.split(".")[0] for name in names} & MODULES
        elif isinstance(node, ast.Call):
            before, _, last = words_of(node.func).rpartition(".")
            named = {word.arg: word.value for word in node.keywords}
            found |= {words_of(node.func)} & FUNCTIONS | ({last} & METHODS if before else set())
            found |= {word for word in ARGUMENTS & named.keys() if not is_word(named[word], False)}
            if is_word(named.get("weights_only"), True):
                safe_loads |= {id(part) for part in (node.func, *node.args)}  # also partial(torch.load, ...)
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and words_of(node) == "torch.load"]
    return found | {"torch.load" for node in loads if id(node) not in safe_loads}


def tracked() -> list[Path]:
    """The repository's files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_module_reads_or_writes_what_can_run_code():
    paths = [path for path in tracked() if path.suffix == ".py" and path.parts[0] in ("sae_lib", "notebooks")]
    assert len(paths) > 100
    found = {(path.as_posix(), what) for path in paths for what in unsafe(ast.parse((ROOT / path).read_text()))}
    assert found == ALLOWED.keys()


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import pickle", "pickle"),
        ("from joblib import load", "joblib"),
        ("torch.save(x, f)", "torch.save"),
        ("torch.load(f)", "torch.load"),
        ("torch.load(f, weights_only=False)", "torch.load"),
        ("load = partial(torch.load, map_location='cpu')", "torch.load"),
        ("np.load(f, allow_pickle=True)", "allow_pickle"),
        ("np.load(f, allow_pickle=flag)", "allow_pickle"),
        ("pd.read_pickle(f)", "read_pickle"),
        ("frame.x.to_pickle(f)", "to_pickle"),
        ("yaml.load(f, yaml.Loader)", "yaml.load"),
        ("eval(text)", "eval"),
        ("exec(text)", "exec"),
        ("subprocess.run(text, shell=True)", "shell"),
        ("os.system(text)", "os.system"),
        ("tarfile.open(f).extractall(folder)", "extractall"),
        ("archive.extract(name)", "extract"),
    ],
)
def test_each_way_is_found(code, what):
    assert unsafe(ast.parse(code)) == {what}


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(f, weights_only=True)",
        "load = partial(torch.load, weights_only=True)",
        "np.load(f)",
        "np.load(f, allow_pickle=False)",
        "yaml.safe_load(f)",
        "model.eval()",
        "from pickle import UnpicklingError",
        "subprocess.run(words, shell=False)",
    ],
)
def test_what_cannot_run_code_is_not_found(code):
    assert unsafe(ast.parse(code)) == set()


def test_no_file_of_the_repository_is_a_pickle():
    assert not [path for path in tracked() if path.suffix in {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib"}]
