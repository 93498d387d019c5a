"""The model card: the README.md of an exported folder, in the form that model hubs show."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from wenet_osum import tasks
from wenet_osum.decode.licenses import License
from wenet_osum.models.osum import OsumModel
from wenet_osum.records import Score
from wenet_osum.score import report
from wenet_osum.text.template import Template

USE = '''The model needs the toolkit wenet_osum (Python 3.11 or newer). In a checkout of it:

```bash
pip install .
```

```python
import wenet_osum  # makes the model known to transformers
from transformers import AutoModel, AutoProcessor

processor = AutoProcessor.from_pretrained("FOLDER")
model = AutoModel.from_pretrained("FOLDER")
ids = model.generate(**processor(audio="a.wav", task="ser"))
print(processor.batch_decode(ids))
```

`task` is a name or any combination of tags, such as `<TRANSCRIBE><EMOTION><GENDER>`; `audio` is a path, bytes, samples with
`sampling_rate`, or a list of those, each at most 30 s. Transformers'
`pipeline(…)` and `trust_remote_code=True` do not know this model. For longer recordings, label
probabilities and word times use the toolkit itself:

```python
import wenet_osum

answer = wenet_osum.load("FOLDER")("a.wav", task="<TRANSCRIBE><EMOTION>")
print(answer.transcript, answer.labels, answer.probs)
```'''


def write(
    model: OsumModel, template: Template, rows: list[License], unknown: list[str], score: str | Path | None = None, license: str | None = None
) -> str:
    """The card's text. ``rows`` are what the model was made from, ``unknown`` names without a known license, ``score`` a score.json."""
    parts = [_front(license), "# Speech understanding model", _made(model), "## Use", USE, "## Tasks", _tasks(template)]
    parts += ["## Scores", _scores(score), "## Licenses", _licenses(rows, unknown, license)]
    return "\n\n".join(parts) + "\n"


def _front(license: str | None) -> str:
    facts = {"license": license} if license else {}
    # No pipeline_tag: with one, hubs print a call of transformers' pipelines, which fails.
    facts |= {"language": ["zh", "en"], "library_name": "wenet_osum"}
    facts |= {"tags": ["wenet_osum", "speech-understanding"]}
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---"


def _made(model: OsumModel) -> str:
    encoder, llm = model.config.encoder, model.config.llm
    count = sum(weight.numel() for weight in model.parameters())
    lora = f", LoRA of rank {model.lora.r} kept apart in `lora`" if model.lora is not None else ""
    return (
        f"A {encoder.model_type} encoder ({encoder.encoder_layers} layers of width {encoder.d_model}), "
        f"an adapter (`{model.config.adapter}`) and a {llm.model_type} language model ({llm.num_hidden_layers} layers of width "
        f"{llm.hidden_size}){lora}: {count:,} parameters, {model.dtype}. "
        "Made with wenet_osum after OSUM ([arXiv 2501.13306](https://arxiv.org/abs/2501.13306)): it transcribes, then answers."
    )


def _tasks(template: Template) -> str:
    lines = ["| task | tags | labels |", "|---|---|---|"]
    for name in tasks.names():
        task = template.task(name)
        labels = "; ".join(", ".join(field.labels.names) for field in task.label_fields)
        lines.append(f"| {name} | `{task.tags}` | {labels} |")
    return "\n".join(lines)


def _scores(path: str | Path | None) -> str:
    """The table of a score.json. Raises ValueError when the file is none."""
    if path is None:
        return "None were given when this folder was exported."
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
        scores = [Score.from_dict(row) for row in tree["scores"]]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"--score {path}: no score.json of `wenet_osum score` ({reason}); give the one in its --out") from None
    lines = ["| task | figure | subset | value | 95 % interval | utterances |", "|---|---|---|---|---|---|"]
    for score in report.ordered(scores):
        value, interval = report.written(score)
        lines.append(f"| {score.task} | {score.about.title} | {score.subset} | {value} | {interval} | {score.utterances} |")
    facts = [f"{key}: `{tree[key]}`" for key in ("command", "commit", "data", "machine") if isinstance(tree.get(key), str) and tree[key]]
    return "\n".join(lines) + ("\n\n" + "; ".join(facts) if facts else "")


def _licenses(rows: list[License], unknown: list[str], license: str | None) -> str:
    own = f"These weights: {license}." if license else "No license was named for these weights when they were exported."
    lines = [own, "", "| made from | kind | license |", "|---|---|---|"]
    lines += [f"| [{row.name}]({row.source}) | {row.kind} | {row.license} |" for row in rows]
    lines += [f"| {name} | | not known to the exporter |" for name in unknown]
    return "\n".join(lines if rows or unknown else [own, "", "What they were made from was not recorded."])
