"""Parsers of the commands, and the options that several of them take."""

from __future__ import annotations

import argparse

from wenet_osum import config


def new_parser(command: str, doc: str | None) -> argparse.ArgumentParser:
    """Make the parser of ``wenet_osum COMMAND``; its help begins with ``doc`` as it is laid out."""
    return argparse.ArgumentParser(
        prog=f"wenet_osum {command}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_override(parser: argparse.ArgumentParser, help: str) -> None:
    """Let a command take settings in the place of those in its yaml.

    Several may follow one ``--override``, and it may be given several times.
    """
    parser.add_argument(
        "--override",
        nargs="*",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help=help,
    )


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Let a command take packages of plug-ins, for ``lookup.add_plugins``."""
    parser.add_argument(
        "--plugins",
        nargs="+",
        default=[],
        metavar="PACKAGE",
        help="packages that bring tasks, metrics or adapters of their own",
    )


def add_phase(parser: argparse.ArgumentParser, example: str) -> None:
    """Let a command take the configuration of a phase, and what may stand in the place of its
    settings.

    ``example`` is shown as values of ``--override``. ``read_phase`` reads it all.
    """
    add = parser.add_argument
    add("--config", required=True, help="yaml of the phase (wenet_osum/config/tables.py)")
    add("--data", help="yaml of the data (DataConfig); replaces data: of the configuration")
    add("--whisper", help="folder or hub name, in the place of model.whisper where that is named")
    add("--llm", help="the same for model.llm; a phase that begins from another needs neither")
    add_override(parser, f"settings, e.g. {example}; the later wins")


def read_phase(args: argparse.Namespace) -> config.TrainConfig:
    """Read the configuration of a phase with what the command line sets in it.

    Raises ConfigError for a faulty one.
    """
    conf = config.load(args.config, config.TrainConfig, args.override)
    if args.data:
        conf.data = args.data

    # A recipe gives both names to all phases; those that begin from a folder of ours load neither.
    if args.whisper and conf.model.whisper:
        conf.model.whisper = args.whisper
    if args.llm and conf.model.llm:
        conf.model.llm = args.llm
    return conf
