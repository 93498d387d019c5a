"""What is compared: the tasks X, the arms, and the cells they make with the seeds. A cell is arm ×
X × seed, and one training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wenet_osum import tasks
from wenet_osum.config import DataConfig, SourceConfig

SEEDS = (1, 2, 3)
TOGETHER = "together"  # arm and X of the cell that is trained on everything and scored on every X
ARMS = {
    "alone": "X alone",
    "asr_x": "ASR+X",
    "label_first": "X, then ASR",
    TOGETHER: "all tasks together",
}
RECOGNITION = (
    "toy",
    "speechocean762",
    "fsdd",
)  # corpora of the shared phase; the cell of everything goes on with them
LABEL_DRAWS = 600  # utterances of each source in an epoch of the cell of everything


@dataclass(frozen=True)
class X:
    """A task on a corpus, beside recognition."""

    name: str
    corpus: str  # folder in data/
    task: str  # name of the task, whose fields are transcript and X

    @property
    def reply(self) -> bool:
        """Whether X is a free answer, which cannot come before the transcript."""
        return tasks.parse(self.task).fields[-1].kind == "reply"


REAL = (
    X("ved", "events", "ved"),
    X("ser", "ravdess", "ser"),
    X("sgc", "speechocean762", "sgc"),
    X("sap", "speechocean762", "sap"),
)
TOY = tuple(X(f"toy_{task}", "toy", task) for task in ("ved", "ser", "ssr", "sgc", "sap", "sttc"))
XS = {x.name: x for x in (*REAL, *TOY)}


@dataclass(frozen=True)
class Cell:
    """One training."""

    x: str  # name of an X, or TOGETHER
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.x}-{self.arm}-{self.seed}"

    def scored_on(self) -> list[X]:
        """The X whose test sets it answers."""
        if self.x == TOGETHER:
            return [*XS.values()]
        return [XS[self.x]]

    def asked(self, x: X) -> str:
        """The tags it is trained and tested with on ``x``."""
        transcript, answer = tasks.parse(x.task).fields
        rows = {"alone": (answer,), "label_first": (answer, transcript)}
        return "".join(
            f"<{tag.strip('<>')}>"
            for field in rows.get(self.arm, (transcript, answer))
            for tag in field.tag.split()
        )


def cells(seeds: tuple[int, ...] = SEEDS) -> Iterator[Cell]:
    """All cells, one seed of every cell before the next seed, so that a table can be made early."""
    for seed in seeds:
        for x in XS.values():
            yield from (
                Cell(x.name, arm, seed)
                for arm in ARMS
                if arm != TOGETHER and not (arm == "label_first" and x.reply)
            )
            if x is REAL[-1]:
                yield Cell(TOGETHER, TOGETHER, seed)


def mixture(cell: Cell, data: str, sizes: dict[str, int]) -> DataConfig:
    """What a cell is trained on: its X, or every X and recognition in equal parts. ``sizes`` are
    utterances by list.
    """

    def source(name: str, path: str, tags: str) -> SourceConfig:
        weight = LABEL_DRAWS / sizes[path] if cell.x == TOGETHER else 1.0
        return SourceConfig(
            name=name,
            list=path,
            weight=weight,
            tasks={tags: 1.0},
        )

    train = [source(x.name, train_list(x, data), cell.asked(x)) for x in cell.scored_on()]
    if cell.x == TOGETHER:
        train += [
            source(f"{corpus}_asr", f"{data}/{corpus}/train/asr.list", "asr")
            for corpus in RECOGNITION
        ]
    dev = {
        cell.asked(x): f"{data}/{x.corpus}/dev/{x.task}.list"
        for x in cell.scored_on()
        if cell.x != TOGETHER or x in REAL
    }
    return DataConfig(train=train, dev=dev)


def train_list(x: X, data: str) -> str:
    """The training list of an X."""
    return f"{data}/{x.corpus}/train/{x.task}.list"
