"""The model card: the README.md of an exported folder, in the form that model hubs show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from wenet_osum.hub.history import History
from wenet_osum.hub.licenses import License
from wenet_osum.models.osum import OsumModel
from wenet_osum.report.markdown import table_lines
from wenet_osum.report.score_table import ordered, titles
from wenet_osum.report.values import written
from wenet_osum.score import score_json
from wenet_osum.text.template import Template

USE = """The model needs the toolkit wenet_osum (Python 3.11 or newer). In a checkout of it:

```bash
pip install .
```

```python
import wenet_osum  # makes the model known to transformers
from transformers import AutoModel, AutoProcessor

processor = AutoProcessor.from_pretrained("FOLDER")
model = AutoModel.from_pretrained("FOLDER")
ids = model.generate(**processor(audio="a.wav", task="TASK"))
print(processor.batch_decode(ids))
```

`task` is a name or any combination of tags, such as `<TRANSCRIBE><EMOTION><GENDER>`; `audio` is a
path, bytes, samples with `sampling_rate`, or a list of those, each at most 30 s. Transformers'
`pipeline(…)` and `trust_remote_code=True` do not know this model. For longer recordings, label
probabilities and word times use the toolkit itself:

```python
import wenet_osum

answer = wenet_osum.load("FOLDER")("a.wav", task="TASK")
print(answer.transcript, answer.labels, answer.probs)
```"""

PLUGINS = """Parts of it are in the packages {names}, which must be installed, too.
In Python begin with

```python
from wenet_osum import lookup

lookup.add_plugins({listed})
```

and give commands `--plugins {words}`."""


def write(
    model: OsumModel,
    template: Template,
    past: History,
    rows: list[License],
    unknown: list[str],
    score: str | Path | None = None,
    license: str | None = None,
) -> str:
    """Return the text of the card.

    ``past`` tells how the model was trained, ``rows`` are what it was made from, ``unknown`` the
    names without a known license, ``score`` a score.json, ``license`` that of these weights. Raises
    ValueError when ``score`` is none.
    """
    trained = trained_tasks(template, past)
    parts = [
        _front(license),
        "# Speech understanding model",
        _made(model),
        "## Use",
        _use(template, trained, past.plugins()),
        "## Tasks",
        _tasks(template, trained),
        "## Scores",
        _scores(score),
        "## Licenses",
        _licenses(rows, unknown, license),
    ]
    return "\n\n".join(parts) + "\n"


def _front(license: str | None) -> str:
    """Return the front matter that hubs read."""
    facts: dict[str, Any] = {}
    if license:
        facts["license"] = license
    facts["language"] = ["zh", "en"]
    # No pipeline_tag: with one, hubs print a call of transformers' pipelines, which fails.
    facts["library_name"] = "wenet_osum"
    facts["tags"] = ["wenet_osum", "speech-understanding"]
    text = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---"


def _made(model: OsumModel) -> str:
    """Return the sentence that says what the model consists of."""
    encoder = model.config.encoder
    llm = model.config.llm
    count = sum(weight.numel() for weight in model.parameters())
    lora = ""
    if model.lora is not None:
        lora = f", LoRA of rank {model.lora.r} kept apart in `lora`"
    encoder_size = f"{encoder.encoder_layers} layers of width {encoder.d_model}"
    llm_size = f"{llm.num_hidden_layers} layers of width {llm.hidden_size}"
    paper = "[arXiv 2501.13306](https://arxiv.org/abs/2501.13306)"
    return (
        f"A {encoder.model_type} encoder ({encoder_size}), "
        f"an adapter (`{model.config.adapter}`) "
        f"and a {llm.model_type} language model ({llm_size}){lora}: "
        f"{count:,} parameters, {model.dtype}. "
        f"Made with wenet_osum after OSUM ({paper}): it transcribes, then answers."
    )


def _use(template: Template, trained: list[str], packages: list[str]) -> str:
    """Return how to load the model and ask it, by a task that it was trained for, and what to do
    about the packages of plug-ins that it needs."""
    names = trained or template.task_names()
    example = names[0]
    for name in names:
        if template.task(name).label_fields:
            example = name
            break
    use = USE.replace("TASK", example)
    if not packages:
        return use
    quoted = ", ".join(f"`{name}`" for name in packages)
    said = PLUGINS.format(names=quoted, listed=packages, words=" ".join(packages))
    return f"{use}\n\n{said}"


def trained_tasks(template: Template, past: History) -> list[str]:
    """Return the tasks that the model was trained for, by name, combinations of tags last; none
    where its lists do not say."""
    found = set()
    for tags in past.tasks():
        try:
            task = template.task(tags)
        except ValueError:
            # one of a plug-in that is not installed here
            continue
        found.add(task.name)
    names = [name for name in template.task_names() if name in found]
    return [*names, *sorted(found - set(names))]


def _tasks(template: Template, trained: list[str]) -> str:
    """Return the table of tasks with their tags and labels, and whether they were trained, where
    that is known."""
    every = dict.fromkeys([*template.task_names(), *trained])
    rows = []
    for name in every:
        task = template.task(name)
        sets = []
        for field in task.label_fields:
            names = field.labels.names
            sets.append(", ".join(names))
        row = [task.name, f"`{task.tags}`", "; ".join(sets)]
        if trained:
            row.append("yes" if name in trained else "")
        rows.append(row)
    head = ["task", "tags", "labels"]
    if trained:
        head.append("trained")
    return "\n".join(table_lines(head, rows))


def _scores(path: str | Path | None) -> str:
    """Return the table of a score.json. Raises ValueError when the file is none."""
    if path is None:
        return "None were given when this folder was exported."
    tree, scores = score_json.read(path)
    rows = []
    names = titles(scores)
    for score in ordered(scores):
        title = names[id(score)]
        utterances = str(score.utterances)
        rows.append([score.task, title, score.subset, *written(score), utterances])
    head = ["task", "figure", "subset", "value", "95 % interval", "utterances"]
    table = "\n".join(table_lines(head, rows))

    # Where the numbers come from, as far as the file says it.
    facts = []
    for key in ("command", "commit", "data", "machine"):
        value = tree.get(key)
        if isinstance(value, str) and value:
            facts.append(f"{key}: `{value}`")
    if not facts:
        return table
    return table + "\n\n" + "; ".join(facts)


def _licenses(rows: list[License], unknown: list[str], license: str | None) -> str:
    """Return the weights' own license and the table of those they were made from."""
    own = "No license was named for these weights when they were exported."
    if license:
        own = f"These weights: {license}."
    if not rows and not unknown:
        return f"{own}\n\nWhat they were made from was not recorded."
    cells = [[f"[{row.name}]({row.source})", row.kind, row.license] for row in rows]
    for name in unknown:
        cells.append([name, "", "not known to the exporter"])
    table = "\n".join(table_lines(["made from", "kind", "license"], cells))
    return f"{own}\n\n{table}"
