"""The options of decoding: one table, from which everything that takes or keeps options is made.

Commands (``add_arguments``), ``wenet_osum.load(**settings)`` (``from_settings``), the settings
beside answers (``deciding``) and the table in docs/decoding.md (``markdown``) follow from the
fields below; a new option is one field.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wenet_osum import lookup
from wenet_osum.context import words_given
from wenet_osum.decode import joint, longform, option_rules
from wenet_osum.decode.modes import ATTENTION, ATTENTION_RESCORING, MODES
from wenet_osum.models import quantized
from wenet_osum.text.template import LANGUAGES

# Transcripts of CTC to choose from, and its weight, where the options do not say.
CTC_BEAMS, CTC_WEIGHT = 10, 0.3
# The rescorer whose weight that is.
CTC_PREFIX = "ctc_prefix"
# torch's names.
DTYPES = ("float32", "bfloat16")
# Below it decoding is greedy: logits / 1e-310 would be infinite.
LEAST_TEMPERATURE = 1e-6


def option(
    default: Any,
    help: str,
    kind: Callable[[str], Any] = str,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
    decides: bool = True,
) -> Any:
    """Describe a field as an option.

    ``kind`` reads its text on a command line (bool: a flag without a value). ``decides`` says that
    answers depend on it: a run does not go on in a folder whose answers were made with another
    value.
    """
    about = {
        "help": help,
        "kind": kind,
        "choices": choices,
        "metavar": metavar,
        "decides": decides,
    }
    if isinstance(default, (dict, list)):

        def fresh() -> Any:
            """Make a copy, so that no two tables share one."""
            return type(default)(default)

        return dataclasses.field(default_factory=fresh, metadata=about)
    return dataclasses.field(default=default, metadata=about)


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


@dataclass
class DecodeOptions:
    """Options of the search. The default is greedy, with labels limited to their sets."""

    mode: str = option(
        ATTENTION,
        "attention: the LLM, or in phase 1 Whisper's decoder, token by token; attention_rescoring: "
        "it chooses among CTC's likeliest transcripts; ctc_greedy_search, ctc_prefix_beam_search: "
        "what CTC and label queries hear, without the LLM, of a model trained with their losses",
        choices=MODES,
    )
    num_beams: int = option(
        1,
        "beams of free text; 1 is greedy; in modes attention_rescoring and ctc_prefix_beam_search "
        f"beams of CTC, there {CTC_BEAMS} in the place of 1",
        int,
    )
    length_penalty: float = option(
        1.0, "beams compare log-probability / length to the power of this", float
    )
    temperature: float = option(
        0.0, "above 0: sampling, drawn by seed and key; below 1e-6 greedy", float
    )
    seed: int = option(777, "of sampling", int)
    repetition_penalty: float = option(
        1.0, "above 1: tokens already said in free text are less likely", float
    )
    max_tokens: int | None = option(
        None, "most tokens of free text; default: by the length of the audio", int
    )
    rescore: dict[str, float] = option(
        {},
        "weights, 0 to below 1, of second opinions beside the LLM (files in decode/rescore), "
        "e.g. ctc_prefix=0.5 for a model trained with loss ctc",
        joint.parse,
        metavar="NAME=WEIGHT,…",
    )
    ctc_draft: bool = option(
        False,
        "CTC proposes transcripts, and the LLM checks many tokens in one pass: the same greedy "
        "answers, sooner; for a model trained with loss ctc",
        bool,
        decides=False,
    )
    trust_ctc: float = option(
        0.0,
        "with ctc_draft: where the mean entropy of CTC's frames is below so many nats, its "
        "transcript is taken unchecked",
        float,
    )
    static_cache: bool = option(
        False,
        "the LLM's cache has a fixed size, and on CUDA a step of greedy search is one graph",
        bool,
        decides=False,
    )
    free: bool = option(False, "do not limit labels to their label set", bool)
    word_times: str = option(
        "answer",
        "answer: as the LLM writes them; ctc: by alignment, for a model trained with loss ctc",
        choices=("answer", "ctc"),
    )
    prefix_text: str | None = option(
        None,
        "text that every answer begins with, as answers are written (< in a transcript: \\<)",
    )

    def __post_init__(self) -> None:
        option_rules.check_numbers(self)
        if self.temperature < LEAST_TEMPERATURE:
            self.temperature = 0.0
        option_rules.check_together(self)

    @property
    def joint(self) -> dict[str, float]:
        """Return the rescorers that have a weight and a say in every token or label; empty: the
        LLM answers alone."""
        found = {name: weight for name, weight in self.rescore.items() if weight}
        if self.mode == ATTENTION_RESCORING:
            # It weighs whole transcripts there.
            found.pop(CTC_PREFIX, None)
        return found

    @property
    def ctc_beams(self) -> int:
        """Return how many transcripts CTC is to find."""
        return self.num_beams if self.num_beams > 1 else CTC_BEAMS

    @property
    def ctc_weight(self) -> float:
        """Return the weight of CTC in the choice among whole transcripts."""
        return self.rescore.get(CTC_PREFIX, CTC_WEIGHT)


@dataclass
class PromptOptions:
    """Options of the prompt."""

    prompt: str | None = option(None, "wording to ask with; default: the task's first prompt")
    lang: str = option("zh", "language of the prompt, whatever the utterance's", choices=LANGUAGES)
    hotwords: list[str] = option(
        [],
        "words that may occur, or a file with one per line; in the place of those in the list",
        words_given,
        metavar="WORD,…|FILE",
    )
    previous: str | None = option(
        None, "text that was said before; in the place of that in the list"
    )
    no_context: bool = option(
        False, "do not tell the model the hotwords and the text before that the list has", bool
    )


@dataclass
class RunOptions:
    """Options of the run."""

    plugins: list[str] = option(
        [],
        "packages that bring plug-ins of their own, e.g. wenet_osum.small",
        _names,
        metavar="PACKAGE,…",
        decides=False,
    )
    batch_size: int = option(16, "most utterances in a batch", int, decides=False)
    max_frames: int = option(
        24000, "most frames (10 ms) in a batch, padding included", int, decides=False
    )
    longest_s: float = option(
        longform.LONGEST_S,
        "seconds of a piece of long audio; fewer for a model trained on short utterances",
        float,
    )
    dtype: str = option(
        "float32",
        "float32 answers do not depend on the batch; bfloat16 is faster on GPUs",
        choices=DTYPES,
    )
    quantization: str = option(
        quantized.NONE,
        "int8: weights and activations of the linear layers of encoder and LLM have 8 bits; nf4: "
        "weights of the LLM have 4; both need requirements/quantization.txt",
        choices=quantized.CHOICES,
    )
    threads: int = option(1, "torch threads of a process", int, decides=False)


TABLES: tuple[type, ...] = (DecodeOptions, PromptOptions, RunOptions)
# Defaults that say nothing to a reader.
NOTHING = (None, {}, [])


def fields() -> Iterator[tuple[type, dataclasses.Field]]:
    """Yield every option with the table it stands in."""
    for table in TABLES:
        for field in dataclasses.fields(table):
            yield table, field


def default(field: dataclasses.Field) -> Any:
    """Return the default value of an option."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command all options, and answer those of former versions with what to write now."""
    groups = {}
    for table in TABLES:
        title = _title(table)
        groups[table] = parser.add_argument_group(title)
    for table, field in fields():
        about = _argument(field)
        groups[table].add_argument(f"--{field.name}", **about)

    for name, now in lookup.renamed("options").items():
        parser.add_argument(
            f"--{name}",
            action=lookup.RenamedOption,
            const=now,
            help=argparse.SUPPRESS,
        )


def _title(table: type) -> str:
    return table.__name__.removesuffix("Options").lower()


def _argument(field: dataclasses.Field) -> dict[str, Any]:
    """Describe an option to argparse; its help ends with the default."""
    about = field.metadata
    text = about["help"]
    if about["kind"] is bool:
        return {"action": "store_true", "help": text}
    usual = default(field)
    if isinstance(usual, float):
        text += f" ({usual:g})"
    elif usual not in NOTHING:
        text += f" ({usual})"
    return {
        "type": _argparse_kind(about["kind"]),
        "default": usual,
        "choices": about["choices"],
        "metavar": about["metavar"],
        "help": text,
    }


def _argparse_kind(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Let a reader's own sentence reach the user: argparse says nothing of a ValueError."""
    if kind in (int, float, str):
        return kind

    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def from_settings(settings: dict[str, Any]) -> argparse.Namespace:
    """Read options given by name in Python; texts are read as on a command line.

    Raises ValueError for an unknown name, a value of another type, and one that is no choice.
    """
    known = {field.name: field for _, field in fields()}
    gone = lookup.renamed("options")
    for name in settings:
        if name in gone:
            raise ValueError(f"{name}: this option is gone; {gone[name]}")
        if name not in known:
            message = lookup.unknown("setting", name, list(known))
            raise ValueError(message)

    values = {}
    for name, field in known.items():
        given = settings.get(name)
        if given is None:
            values[name] = default(field)
        else:
            values[name] = _value(field, given)
    return argparse.Namespace(**values)


def _value(field: dataclasses.Field, given: Any) -> Any:
    """Read the value given for an option. Raises ValueError for one that it cannot have."""
    kind = field.metadata["kind"]
    if kind is bool:
        return bool(given)
    if isinstance(given, (dict, list, tuple)):
        usual = default(field)
        if not isinstance(usual, (dict, list)):
            raise ValueError(f"{field.name} {given!r}: expected one value")
        return type(usual)(given)

    try:
        value = kind(str(given))
    except ValueError as error:
        raise ValueError(f"{field.name} {given!r}: {error}") from None
    choices = field.metadata["choices"]
    if choices and value not in choices:
        message = lookup.unknown("value", value, list(choices))
        raise ValueError(f"{field.name}: {message}")
    return value


def decode_options(args: argparse.Namespace) -> DecodeOptions:
    """Take the search out of the options. Raises ValueError for bad values of any option."""
    for name in ("batch_size", "max_frames", "threads"):
        number = getattr(args, name)
        if number < 1:
            raise ValueError(f"--{name} {number} must be 1 or more")

    if args.no_context and (args.hotwords or args.previous):
        raise ValueError("--no_context tells the model nothing; leave hotwords and previous out")

    # Unknown names and pieces too short or too long are refused before the model is loaded.
    lookup.add_plugins(args.plugins)
    quantized.check(args.quantization)
    joint.rescorer_classes(args.rescore)
    longform.whole_s(args.longest_s)

    table = TABLES[0]
    values = {}
    for field in dataclasses.fields(table):
        values[field.name] = getattr(args, field.name)
    return table(**values)


def deciding(args: argparse.Namespace) -> dict[str, Any]:
    """Take the options that answers depend on, to be kept beside them."""
    found = {}
    for _, field in fields():
        if field.metadata["decides"]:
            found[field.name] = getattr(args, field.name)
    return found


def markdown() -> str:
    """Write the table of docs/decoding.md."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for _, field in fields():
        usual = default(field)
        shown = "" if usual in (False, *NOTHING) else f"`{usual}`"
        text = field.metadata["help"]
        lines.append(f"| `--{field.name}` | {shown} | {text} |")
    return "\n".join(lines) + "\n"
