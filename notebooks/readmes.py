"""The computed parts of the READMEs, from the records, the costs and the benchmarks; `make notebooks` writes them.

README.md says what came out, `figures/README.md` lists the artefacts, `notebooks/README.md` the chapters, what they
cost, and how fast the library is.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from notebooks import costs
from notebooks.artefacts import answer_of, index
from notebooks.jobs import LAST, in_order, seconds_left
from notebooks.register import verdicts
from sae_lib.cache.artefact import ROOT, write_if_changed
from sae_lib.companion.verdicts import bare, in_words

FIGURES, SOURCES = ROOT / "figures", ROOT / "notebooks" / "src"
PLAINER = {
    "C2": "SAEs of Turbo's one step fit the base model without more training",
    "C3": "An SAE explains more when k, the number of features that may be active at once, is larger",
    "C4": "Nearly every feature fires in some picture",
    "C9": "In Turbo, edits in early steps change a picture more than edits in late steps",
    "C11": "In FLUX, a feature that is turned on draws what it reads",
    "C14": "A picture survives when an SAE rebuilds what one block adds to it",
}
"""What the first README says of a claim in place of its rule's text, which is fixed in `rules.json`."""
ANSWERS = {"holds": "Yes", "fails": "No", "undecided": "Undecided"}


def question_of(notebook: str) -> str:
    """The question that a notebook's first cell asks. Raises ValueError if it asks none."""
    first, _ = (SOURCES / f"{notebook}.py").read_text().split("\n# %%", 1)
    prose = " ".join(line.removeprefix("#").strip() for line in first.splitlines())
    asked = re.search(r"\*\*Question\.\*\* (.*?\?)(?= |$)", prose)
    if asked is None:
        raise ValueError(f"{notebook}: its first cell needs '**Question.** ...?'")
    return asked[1]


def results_list() -> str:
    """What came out, as markdown: the scorecard's counts, the tests that decided, and what one wants to know first."""
    from sae_lib.companion.primaries import PRIMARY  # loads half of the library: only where the READMEs are written

    card = json.loads((FIGURES / "99_scorecard" / "scorecard.json").read_text())["result"]
    words = {name: claim["word"] for name, claim in card["claims"].items()}
    decided = re.sub(r"(\d+) undecided", r"\1 are undecided", in_words(words.values()))
    counted = f"Of the paper's {len(words)} claims, on our pocket models {decided}"
    lines = [f"**What came out.** {counted} ([scorecard](notebooks/99_scorecard.ipynb)).", ""]
    for verb, word in {"What holds": "holds", "What fails": "fails"}.items():
        those = [name for name in words if words[name] == word]
        if texts := [f"{PLAINER.get(name) or PRIMARY[name].text.partition(' (')[0]} ({name})" for name in those]:
            lines.append(f"- *{verb}:* {'; '.join(texts)}.")
    return "\n".join([*lines, f"- {what_is_drawn()}", f"- {what_carries_over()}"])


def what_is_drawn() -> str:
    """Whether features draw what they read, by notebook 08."""
    (on,) = [verdict for _, verdict in verdicts() if verdict["primary"] and verdict["id"] == "C1"]
    rise, low, high, wanted = (round(100 * share) for share in (on["value"], *on["interval"], on["at_least"]))
    answer = f"{ANSWERS[bare(on['word'])]}: it does so in {rise} more of 100 pictures than a random feature (95 % "
    answer += f"interval: {low} to {high}). We asked for at least {wanted}"
    question = "A feature fires where it sees one thing, such as night. If we switch it on, does it draw that thing?"
    return f"*{question}* {answer}. ([08](notebooks/08_writing_with_features.ipynb))"


def what_carries_over() -> str:
    """Whether the SAEs of one step fit more steps, by notebook 04."""
    carried = "no additional training needed"
    of = {v["claim"].partition(":")[0]: v for name, v in verdicts() if name == "04_transfer" and carried in v["claim"]}
    fast, base = of["Turbo"], of["Base"]
    reached, of_base, wanted = (round(100 * share) for share in (fast["value"], base["value"], base["at_least"]))
    answer = f"Turbo: {ANSWERS[bare(fast['word'])].lower()}; the base model: {ANSWERS[bare(base['word'])].lower()}. "
    answer += "On a scale from 0 % (SAEs that learnt nothing of this block) to 100 % (SAEs that were trained on those "
    answer += f"very steps) they reach {reached} % and {of_base} %. We asked for at least {wanted} %."
    question = "SAEs were trained on one step of Turbo. Do they also fit Turbo's four steps and the base model's many?"
    return f"*{question}* {answer} ([04](notebooks/04_transfer.ipynb))"


def chapters_table() -> str:
    """Every notebook with its question, the answer of its stored run and its verdicts, as markdown."""
    lines = ["| notebook | question | answer | tests |", "|---|---|---|---|"]
    words: dict[str, list[str | None]] = {}
    for notebook, verdict in verdicts():
        words.setdefault(notebook, []).append(verdict["word"])
    for source in sorted(SOURCES.glob("[0-9][0-9]_*.py")):
        name = source.stem
        cells = (
            f"[{name[:2]}]({name}.ipynb)",
            question_of(name),
            answer_of(name),
            in_words(words.get(name, ())) or "–",
        )
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def artefacts_table(figures: Path = ROOT / "figures") -> str:
    """Every artefact that is made as a row of markdown, then how many are not made, and why."""
    lines = ["| artefact | shows | notebook | figures | verdicts on the pocket model |", "|---|---|---|---|---|"]
    rows = index(figures)
    for row in rows:
        if row["status"] != "made":
            continue
        verdicts = in_words(Counter(row["verdicts"].get("pocket", {})).elements()) or "–"
        notebooks = ", ".join(f"[{stem[:2]}](../notebooks/{stem}.ipynb)" for stem in row["notebooks"])
        files = ", ".join(f"[{file.split('/')[1]}]({file}.png)" for file in row["files"])
        lines.append(f"| {row['id']} | {row['title']} | {notebooks} | {files} | {verdicts} |")
    of_the_paper = [row for row in rows if not row["id"].startswith("Companion")]
    counts = Counter(row["status"] for row in of_the_paper)
    statuses = "; ".join(f"{count} {status}" for status, count in counts.most_common())
    lines += ["", f"Of the {len(of_the_paper)} figures and tables that are known of the paper: {statuses}."]
    return "\n".join(lines)


def speed_table(results: Path = ROOT / "figures" / "results") -> str:
    """What the benchmarks measured, as markdown; it also says what was not run."""
    step, harvest = (json.loads((results / f"{name}.json").read_text())["result"] for name in ("sae_step", "harvest"))
    setting = "batch 4,096, d_model 1,280, n_f 5,120, k 10, two CPU cores"
    lines = [f"| one SAE training step, {setting} | times ours | peak memory |", "|---|---|---|"]
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


def cards_table(record: Path = ROOT / "figures" / "90_speed" / "cards.json") -> str:
    """Memory and time of both ways to SDXL's figures, as markdown, from notebook 90's record."""
    result = json.loads(record.read_text())["result"]
    need = {way: sum(parts.values()) for way, parts in result["memory_gb"].items()}
    measured = record.parents[1] / "results" / "gpu.json"
    device = json.loads(measured.read_text())["run"]["device"] if result["hours"] else ""
    hours = f"{result['hours']['harvest and training']:.1f} h (rehearsal on one {device})" if result["hours"] else ""
    lines = ["| GPU | published SAEs, notebooks 03 and 04 | trained on 1.5 million prompts | time of the training |"]
    lines.append("|---|---|---|---|")
    for card, can in result["cards"].items():
        published = f"fits: {need['published']:.1f} GB and activations" if can["published fits"] else "does not fit"
        trained = f"`buffer` {can['buffer']:,} vectors" if can["buffer"] else "does not fit"
        lines.append(f"| {card} GB | {published} | {trained} | {hours if f'{card}GB' in device else 'not run'} |")
    return "\n".join(lines)


def times_table() -> str:
    """How long all notebooks take at pocket scale by the number of cores, counted from the committed costs."""
    took = costs.committed("pocket")
    last = [cost.seconds for name, cost in took.items() if name.startswith(LAST)]
    others = [took[name].seconds for name in in_order(took) if not name.startswith(LAST)]
    minutes = {cores: (seconds_left([], others, cores) + sum(last)) / 60 for cores in (1, 2, 4, 8)}
    longest = max(took, key=lambda name: took[name].seconds)
    largest = max(took, key=lambda name: took[name].peak_gb)
    minutes_by_cores = ", ".join(f"{count:.0f} on {cores}" for cores, count in minutes.items())
    return (
        f"All notebooks at pocket scale, from an empty cache: {minutes_by_cores} cores (minutes, counted from each "
        f"notebook's own time on one core of two; the longest is {longest[:2]} with {took[longest].seconds / 60:.0f}). "
        f"The most memory, {took[largest].peak_gb:.1f} GB, is taken by {largest[:2]}."
    )


PARTS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "README.md": {"results": results_list},
    "figures/README.md": {"artefacts": artefacts_table},
    "notebooks/README.md": {
        "chapters": chapters_table,
        "times": times_table,
        "cards": cards_table,
        "speed": speed_table,
    },
}
"""By file, the parts that are written into it."""


def write_readmes(root: Path = ROOT) -> None:
    """Put each part between its two marks in its README."""
    for file, parts in PARTS.items():
        text = (root / file).read_text()
        for name, part in parts.items():
            start, end = f"<!-- {name}: written by `make notebooks` -->", f"<!-- /{name} -->"
            before, rest = text.split(start)
            text = f"{before}{start}\n{part()}\n{end}{rest.split(end)[1]}"
        write_if_changed(root / file, text.encode())
