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


@dataclass(frozen=True)
class X:
    """A task on a corpus, beside recognition."""

    name: str
    corpus: str  # folder in data/
    task: str  # name of the task, whose fields are transcript and X
    seeds: tuple[int, ...] = (1,)
    encoder: bool = False  # the upper layers of the encoder train as well


FROZEN = (
    X("ser", "ravdess", "ser", SEEDS),
    X("sap", "speechocean762", "sap", SEEDS),
    X("sgc", "speechocean762", "sgc"),
    X("ved", "esc50", "ved"),
)
TRAINED = (X("ser_encoder", "ravdess", "ser", encoder=True),)
XS = {x.name: x for x in (*FROZEN, *TRAINED)}


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

    @property
    def trains_encoder(self) -> bool:
        """Whether the upper layers of the encoder train."""
        return self.x in XS and XS[self.x].encoder

    def scored_on(self) -> list[X]:
        """Return the X whose test sets it answers."""
        if self.x == TOGETHER:
            return [*FROZEN]
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
            if seed not in x.seeds:
                continue
            for arm in ARMS:
                if arm != TOGETHER:
                    yield Cell(x.name, arm, seed)
        yield Cell(TOGETHER, TOGETHER, seed)


def mixture(cell: Cell, data: str) -> DataConfig:
    """Return what a cell is trained on: every utterance of its X, or of all of them, once per
    epoch."""
    train = []
    dev = {}
    for x in cell.scored_on():
        tags = cell.asked(x)
        source = SourceConfig(
            name=x.name,
            list=list_of(x, data, "train"),
            weight=1.0,
            tasks={tags: 1.0},
        )
        train.append(source)
        dev[tags] = list_of(x, data, "dev")
    return DataConfig(train=train, dev=dev)


def list_of(x: X, data: str, split: str) -> str:
    """Return the list of an X in a split."""
    return f"{data}/{x.corpus}/{split}/{x.task}.list"
