"""What is compared: the tasks X, the arms, and the cells they make with the seeds.

A cell is arm × X × seed, and one training.
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
# Corpora of the shared phase; the cell of everything goes on with them.
RECOGNITION = ("toy", "speechocean762", "fsdd")
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
        """Return the X whose test sets it answers."""
        if self.x == TOGETHER:
            return [*XS.values()]
        return [XS[self.x]]

    def asked(self, x: X) -> str:
        """Return the tags it is trained and tested with on ``x``."""
        transcript, answer = tasks.parse(x.task).fields
        fields = [transcript, answer]
        if self.arm == "alone":
            fields = [answer]
        elif self.arm == "label_first":
            fields = [answer, transcript]

        # A field may have several tags.
        tags = []
        for field in fields:
            tags += field.tag.split()
        return "".join(f"<{tag.strip('<>')}>" for tag in tags)


def cells(seeds: tuple[int, ...] = SEEDS) -> Iterator[Cell]:
    """Yield all cells.

    One seed of every cell comes before the next seed, so that a table can be made early.
    """
    for seed in seeds:
        for x in XS.values():
            for arm in arms_of(x):
                yield Cell(x.name, arm, seed)
            # The cell of everything comes after those of the real corpora.
            if x is REAL[-1]:
                yield Cell(TOGETHER, TOGETHER, seed)


def arms_of(x: X) -> list[str]:
    """Return the arms that an X has."""
    arms = [arm for arm in ARMS if arm != TOGETHER]
    if x.reply:
        arms.remove("label_first")
    return arms


def mixture(cell: Cell, data: str, sizes: dict[str, int]) -> DataConfig:
    """Return what a cell is trained on: its X, or every X and recognition in equal parts.

    ``sizes`` are utterances by list.
    """

    def source(name: str, path: str, tags: str) -> SourceConfig:
        weight = LABEL_DRAWS / sizes[path] if cell.x == TOGETHER else 1.0
        return SourceConfig(
            name=name,
            list=path,
            weight=weight,
            tasks={tags: 1.0},
        )

    train = []
    dev = {}
    for x in cell.scored_on():
        tags = cell.asked(x)
        train.append(source(x.name, train_list(x, data), tags))
        # Curves of the cell of everything are of the real corpora alone.
        if cell.x != TOGETHER or x in REAL:
            dev[tags] = f"{data}/{x.corpus}/dev/{x.task}.list"
    if cell.x == TOGETHER:
        for corpus in RECOGNITION:
            path = f"{data}/{corpus}/train/asr.list"
            train.append(source(f"{corpus}_asr", path, "asr"))
    return DataConfig(train=train, dev=dev)


def train_list(x: X, data: str) -> str:
    """Return the training list of an X."""
    return f"{data}/{x.corpus}/train/{x.task}.list"
