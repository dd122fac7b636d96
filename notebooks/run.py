"""Run the notebooks: `python notebooks/run.py reproduce` and `python notebooks/run.py build`.

reproduce [NAME ...] [-p PARAMETER VALUE]   run copies below .cache/reproduce/, write figures/, end with a table
build [NAME ...]                            make notebooks/NN_name.ipynb, executed, from notebooks/src/NN_name.py
"""

import argparse
import ast
import base64
import hashlib
import importlib
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
import yaml
from ipykernel.kernelspec import get_kernel_dict
from nbclient.exceptions import DeadKernelError
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from sae_lib import store
from sae_lib.artefacts import index
from sae_lib.figures import figure_folder, with_palette
from sae_lib.runs import Run, refuse_unknown

FOLDER = Path(__file__).resolve().parent
SOURCES = FOLDER / "src"
MAX_BYTES = 1_000_000
"""A stored notebook is at most this large: more and GitHub shows none of it."""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def find_sources(names: Sequence[str] = (), folder: Path = SOURCES) -> list[Path]:
    """Sources of the numbered notebooks, all or those named ("04_transfer"), in order.

    Raises ValueError for a name that is none.
    """
    sources = {path.stem: path for path in sorted(folder.glob("[0-9][0-9]_*.py"))}
    if unknown := sorted(set(names) - set(sources)):
        raise ValueError(f"no notebook {', '.join(unknown)}; there are {', '.join(sources) or 'none yet'}")
    return [path for stem, path in sources.items() if not names or stem in names]


def read_source(source: Path) -> nbformat.NotebookNode:
    """The notebook that a percent-format source describes, for this interpreter's kernel.

    A cell's id is a hash of its text, so that it stays the same however often and wherever the notebook is built.
    """
    notebook = jupytext.read(source, fmt="py:percent")
    seen = Counter()
    for cell in notebook.cells:
        text = f"{cell.cell_type}\n{cell.source}"
        cell["id"] = hashlib.sha256(f"{text}\n{seen[text]}".encode()).hexdigest()[:8]
        seen[text] += 1
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def parameters_of(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Names and defaults in the cell tagged `parameters`: its lines are `name: type = value  # help`."""
    cells = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    lines = [node for source in cells for node in ast.parse(source).body if isinstance(node, ast.AnnAssign)]
    return {line.target.id: ast.literal_eval(line.value) for line in lines}


def use_this_interpreter() -> None:
    """Make "python3" the kernel of this very interpreter and clone, whatever else is installed on the machine.

    Also builds matplotlib's font cache, which the first import on a machine otherwise announces in the notebook.
    """
    kernel = store.cache_root() / "jupyter" / "kernels" / "python3" / "kernel.json"
    # The kernel listens on this machine's loopback only; at a lower level it warns of that for each notebook.
    spec = get_kernel_dict(["--IPKernelApp.log_level=ERROR"]) | {"env": {"PYTHONPATH": str(store.ROOT)}}
    store.write_if_changed(kernel, json.dumps(spec, indent=1).encode())
    os.environ["JUPYTER_PATH"] = str(kernel.parents[2])
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    importlib.import_module("matplotlib.font_manager")


def try_execute(source: Path, target: Path, parameters: Mapping[str, Any]) -> str:
    """Run a source as the notebook `target`, in the folder of `target`; one sentence that says what failed, empty if nothing did.

    Raises ValueError for a parameter that the notebook does not have, before anything runs.
    """
    notebook = read_source(source)
    refuse_unknown(source.stem, set(parameters), parameters_of(notebook))
    return try_run(source.stem, notebook, target, target.parent, parameters)


def try_run(
    name: str, notebook: nbformat.NotebookNode, target: Path, folder: Path, parameters: Mapping[str, Any] | None = None
) -> str:
    """Run a notebook in a folder and write it, with its outputs, to `target`; one sentence that says what failed and where to look."""
    target.parent.mkdir(parents=True, exist_ok=True)
    quiet = {"progress_bar": False, "log_output": False}
    try:
        papermill.execute_notebook(notebook, target, dict(parameters or {}), kernel_name="python3", cwd=folder, **quiet)
    except papermill.PapermillExecutionError as error:
        return f"{name} failed in cell {error.cell_index}: {error.ename}: {error.evalue} (see {target})"
    except DeadKernelError:
        return f"{name} failed: its kernel died, most often for want of memory (see {target})"
    return ""


def reproduce(sources: Sequence[Path], target_folder: Path, parameters: Mapping[str, Any]) -> list[str]:
    """Run copies of the notebooks, print a table of what they made; return the failures, one sentence each."""
    rows, failures = [("notebook", "seconds", "figures", "artefacts", "verdicts")], []
    for source in sources:
        refuse_unknown(source.stem, set(parameters), parameters_of(read_source(source)))
    for source in sources:
        print(f"{source.stem} ...", flush=True)
        run = Run(source.stem, parameters_of(read_source(source)) | parameters)
        start, artefacts = time.time(), _artefacts()
        failure = try_execute(source, target_folder / f"{source.stem}.ipynb", parameters)
        records = [path for path in figure_folder(run).glob("*.json") if path.stat().st_mtime > start - 0.1]
        verdicts = [verdict for path in records for verdict in json.loads(path.read_text())["result"]["verdicts"]]
        words = Counter(verdict["word"] or "no verdict" for verdict in verdicts)
        verdicts = ", ".join(f"{count} {word}" for word, count in sorted(words.items())) or "-"
        made = (str(len(records)), str(len(_artefacts() - artefacts)), "FAILED" if failure else verdicts)
        rows.append((source.stem, f"{time.time() - start:.0f}", *made))
        failures += [failure] if failure else []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print("", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows), *failures, sep="\n")
    return failures


def _artefacts() -> set[Path]:
    return set(store.cache_root().glob("artefacts/[!.]*-*"))


def build(sources: Sequence[Path], target_folder: Path) -> list[str]:
    """Make the committed notebooks: executed, without anything that differs between two equal runs.

    Returns the failures; a notebook that fails or is larger than MAX_BYTES leaves the one that was there.
    """
    failures = []
    for source in sources:
        print(f"{source.stem} ...", flush=True)
        executed = store.cache_root() / "build" / f"{source.stem}.ipynb"
        if failure := try_execute(source, executed, {}):
            failures.append(failure)
            continue
        content = nbformat.writes(without_traces(nbformat.read(executed, as_version=4))).encode()
        if len(content) > MAX_BYTES:
            failures.append(f"{source.stem} is {len(content):,} bytes, the limit is {MAX_BYTES:,}: draw less in it")
            continue
        store.write_if_changed(target_folder / f"{source.stem}.ipynb", content + b"\n")
    print(*failures, sep="\n")
    return failures


def readme_table(figures: Path = store.ROOT / "figures") -> str:
    """Every artefact that is made as a row of markdown, then the count of those that are not, and why."""
    lines = ["| artefact | shows | notebook | figures | verdicts on the pocket model |", "|---|---|---|---|---|"]
    rows = index(figures)
    for row in rows:
        if row["status"] != "made":
            continue
        words = row["verdicts"].get("pocket", {})
        verdicts = ", ".join(f"{count} {word.split()[0]}" for word, count in sorted(words.items())) or "–"
        notebooks = ", ".join(f"[{stem[:2]}](notebooks/{stem}.ipynb)" for stem in row["notebooks"])
        files = ", ".join(f"[{file.split('/')[1]}](figures/{file}.png)" for file in row["files"])
        lines.append(f"| {row['id']} | {row['title']} | {notebooks} | {files} | {verdicts} |")
    of_the_paper = [row for row in rows if not row["id"].startswith("Companion")]
    counts = Counter(row["status"] for row in of_the_paper)
    told = "; ".join(f"{count} {status}" for status, count in counts.most_common())
    lines += ["", f"Of the {len(of_the_paper)} figures and tables that are known of the paper: {told}."]
    return "\n".join(lines)


def speed_table(results: Path = store.ROOT / "figures" / "results") -> str:
    """What the benchmarks measured, as markdown; what was not run says so."""
    step, harvest = (json.loads((results / f"{name}.json").read_text())["result"] for name in ("sae_step", "harvest"))
    lines = [
        "| one SAE training step, batch 4,096, d_model 1,280, n_f 5,120, k 10, two CPU cores | times ours | peak memory |"
    ]
    lines.append("|---|---|---|")
    for name, ratio in step["times_ours"].items():
        lines.append(f"| {name} | {ratio:.2f} | {step['peak_memory_gb'][name]:.2f} GB |")
    lines += ["", "| harvesting the updates of the four blocks | times the pipeline call |", "|---|---|"]
    lines += [f"| {name} | {gain:.2f} |" for name, gain in harvest["times_the_pipeline_call"].items()]
    scaling = json.loads((results / "scaling.json").read_text())["result"]
    saes, prompts = scaling["settings"]["saes_by_prompts"], max(scaling["prompts"], key=int)
    counts = sorted(scaling["saes"], key=int)
    more = scaling["saes"][counts[-1]] / scaling["saes"][counts[0]]
    lines += ["", f"{saes} SAEs on {int(prompts):,} pocket prompts, harvest and training in one stream: "]
    lines[-1] += f"{scaling['prompts'][prompts]:.0f} s. {counts[-1]} SAEs on one stream cost {more:.2f} times one."
    lines += ["", "Full width on a GPU: " + ("see notebook 90." if (results / "gpu.json").is_file() else "not run.")]
    return "\n".join(lines)


def cards_table(record: Path = store.ROOT / "figures" / "90_speed" / "cards.json") -> str:
    """Memory and time of both ways to SDXL's figures, as markdown, from notebook 90's record."""
    told = json.loads(record.read_text())["result"]
    need = {way: sum(parts.values()) for way, parts in told["memory_gb"].items()}
    hours = f"{told['hours']['harvest and training']:.1f} h (rehearsal)" if told["hours"] else "not run"
    lines = ["| GPU | published SAEs, notebooks 03 and 04 | trained on 1.5 million prompts | time of the training |"]
    lines.append("|---|---|---|---|")
    for card, can in told["cards"].items():
        published = f"fits: {need['published']:.1f} GB and activations" if can["published fits"] else "does not fit"
        trained = f"`buffer` {can['buffer']:,} vectors" if can["buffer"] else "does not fit"
        lines.append(f"| {card} GB | {published} | {trained} | {hours} |")
    return "\n".join(lines)


README_PARTS = {"artefacts": readme_table, "speed": speed_table, "cards": cards_table}


def write_index(path: Path = store.ROOT / "figures" / "index.json") -> None:
    """Every artefact with its status, scales and verdicts."""
    store.write_if_changed(path, (json.dumps(index(), indent=1) + "\n").encode())


def write_readme_tables(readme: Path = store.ROOT / "README.md") -> None:
    """Put each part between its two marks in the README."""
    text = readme.read_text()
    for name, table in README_PARTS.items():
        start, end = f"<!-- {name}: written by `make notebooks` -->", f"<!-- /{name} -->"
        before, rest = text.split(start)
        text = f"{before}{start}\n{table()}\n{end}{rest.split(end)[1]}"
    store.write_if_changed(readme, text.encode())


def without_traces(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The executed notebook without timings, versions, widgets and papermill's notes; its pictures in 256 colours.

    Of a widget its text is left: its view without its state would be an error message to a reader without a kernel.
    """
    # A kernel sends what is printed in pieces, now so and now so.
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            if "image/png" in output.get("data", {}):
                png = with_palette(base64.b64decode(output["data"]["image/png"]))
                output["data"]["image/png"] = base64.b64encode(png).decode() + "\n"
    return notebook


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 if a notebook failed, 2 if the command itself is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["reproduce", "build"])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help='notebooks such as "04_transfer"; all if none is given'
    )
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("PARAMETER", "VALUE"))
    options = parser.parse_args(arguments)
    if options.command == "build" and options.p:
        parser.error("committed notebooks are built with their default parameters: -p goes with reproduce")
    use_this_interpreter()
    try:
        sources = find_sources(options.names)
        if options.command == "build":
            failures = build(sources, FOLDER)
            write_index()
            write_readme_tables()
            return bool(failures)
        parameters = {name: yaml.safe_load(value) for name, value in options.p}
        return bool(reproduce(sources, store.cache_root() / "reproduce", parameters))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
