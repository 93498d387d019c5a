"""Answer recordings over HTTP: OpenAI's transcription endpoint, and a page for the browser.

The address is printed on stdout when the server is ready; remarks go to stderr. Requests that come
at the same time are answered as one batch. SIGINT (Ctrl-C) and SIGTERM let the requests in flight
be answered first; a second Ctrl-C does not wait. Needs the extra [serve].

examples:
  wenet_osum serve --model exp/x/final
  wenet_osum serve --model exp/x/final --port 8080 --threads 4 --max_seconds 120 --no_page
  WENET_OSUM_API_KEY=$(cat key) wenet_osum serve --model exp/x/final \\
    --host 0.0.0.0 --allow_host speech.example.org
  wenet_osum serve --model exp/x/final --lora kids=exp/kids/final news=exp/news/final
  curl -F file=@a.wav --form-string task='<TRANSCRIBE><EMOTION><GENDER>' \\
    http://127.0.0.1:8000/v1/audio/transcriptions
  arecord -f S16_LE -r 16000 -t raw | curl -N -T . -X POST http://127.0.0.1:8000/v1/audio/stream

exit status:
  0 stopped by a signal,
  2 a fault of the arguments: no such model, a port in use, the extra [serve] missing
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
from typing import TYPE_CHECKING

from wenet_osum.bin._arguments import new_parser
from wenet_osum.decode import load, options
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.decode.speech import Transcriber
from wenet_osum.models import lora, loras, quantized
from wenet_osum.text.template import Template

if TYPE_CHECKING:
    from wenet_osum.serve.settings import Settings

# Where a key is looked for; one among the arguments would stand in the list of processes.
KEY = "WENET_OSUM_API_KEY"
# peft keeps adapters under their names in module tables, which take no dots.
NAME = re.compile(r"[A-Za-z0-9_-]+")


def main(argv: list[str] | None = None) -> int:
    """Serve until told to stop. Returns the exit status."""
    args = parse(argv)
    try:
        return serve(args)
    except (ValueError, OSError) as error:
        print(f"serve: {error}", file=sys.stderr, flush=True)
        return 2


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("serve", __doc__)
    add = parser.add_argument
    add("--model", required=True, help="model folder or hub name")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on (127.0.0.1: this machine only); others need a key or "
        "--allow_host",
    )
    add("--port", type=int, default=8000, help="default: 8000; 0 takes a free one")
    add(
        "--name",
        default="osum",
        help="the model's name for clients (osum); whisper-1 is always taken too",
    )
    add(
        "--lora",
        nargs="+",
        default=[],
        metavar="NAME=FOLDER",
        help="model folders that differ from --model in LoRA alone; clients choose by the name",
    )
    add(
        "--api_key",
        default=os.environ.get(KEY),
        help=f"ask every client for this key; better given in the variable {KEY}",
    )
    add(
        "--allow_host",
        nargs="+",
        default=[],
        metavar="NAME",
        help="further names it is asked under, as behind a proxy",
    )
    add(
        "--no_page",
        action="store_true",
        help="the endpoint alone, without the page and gradio",
    )
    _add_limits(parser)
    options.add_arguments(parser)
    return parser.parse_args(argv)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the options that bound what a client may ask."""
    limits = parser.add_argument_group("limits")
    add = limits.add_argument
    add("--max_mb", type=float, default=25.0, help="of an upload, in 10^6 bytes (25)")
    add("--max_seconds", type=float, default=600.0, help="of audio (600)")
    add(
        "--queue",
        type=int,
        default=64,
        help="requests in flight at a time (64); more are answered with 429 and Retry-After",
    )
    add("--timeout", type=float, default=120.0, help="seconds from a request to its answer (120)")
    add("--streams", type=int, default=8, help="recordings heard while they are made, at once (8)")
    add(
        "--step_s",
        type=float,
        default=1.0,
        help="seconds of new sound after which a stream is decoded anew (1)",
    )
    add(
        "--idle_s", type=float, default=10.0, help="seconds a stream may be silent on the line (10)"
    )
    add(
        "--wait_ms",
        type=float,
        default=20.0,
        help="how long the first request of a batch waits for others (20)",
    )


def serve(args: argparse.Namespace) -> int:
    """Bind, load, answer; returns the exit status.

    Raises ValueError for what cannot begin, before the model is loaded where that can be known.
    """
    _import_extra(args.no_page)
    from wenet_osum.serve import server
    from wenet_osum.serve.app import make_app
    from wenet_osum.serve.connections import raise_descriptor_limit

    settings = _settings(args)
    args.task = "asr"
    raise_descriptor_limit()
    with server.bind(args.host, args.port) as listening:
        recognizer = load.recognizer(args, merge=not args.lora)
        others = _loras(recognizer, args.lora)
        transcriber = Transcriber(recognizer)
        transcriber.asked()
        app = make_app(transcriber, settings, not args.no_page, others)
        if args.host not in server.LOCAL and not settings.api_key:
            print(
                f"serve: anyone who can reach this machine may ask; set a key in {KEY}",
                file=sys.stderr,
                flush=True,
            )
        print(server.url(listening), flush=True)
        server.run(app, listening)
    return 0


def _loras(recognizer: Recognizer, given: list[str]) -> dict[str, Recognizer]:
    """Add LoRAs to a model; returns by name what answers with them, in their own labels and
    prompts.

    Raises ValueError for folders that do not fit.
    """
    found = {}
    for name, folder in _named(given):
        loras.add(recognizer.model, name, folder)
        template = Template.load(folder)
        found[name] = dataclasses.replace(recognizer, template=template)
    return found


def _named(given: list[str]) -> list[tuple[str, str]]:
    """Take NAME=FOLDER apart. Raises ValueError for what is written otherwise."""
    found = []
    for text in given:
        name, equals, folder = text.partition("=")
        if not NAME.fullmatch(name) or not equals or not folder:
            raise ValueError(f"--lora {text}: write NAME=FOLDER, the name of letters, digits, _, -")
        found.append((name, folder))
    return found


def _import_extra(no_page: bool) -> None:
    """Import what the extra [serve] brings. Raises ValueError where it is missing."""
    try:
        import wenet_osum.serve.app
        import wenet_osum.serve.server  # noqa: F401

        # gradio comes last: it is what the page alone needs.
        if not no_page:
            import wenet_osum.serve.page  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is not installed; "
            "pip install 'wenet_osum[serve]' brings what a server needs"
        ) from None


def _settings(args: argparse.Namespace) -> Settings:
    """Return the limits and names the arguments ask for. Raises ValueError for bad ones."""
    from wenet_osum.serve import server
    from wenet_osum.serve.settings import ALIASES, MB, Settings

    names = [name for name, _ in _named(args.lora)]
    taken = (args.name, lora.NAME, *ALIASES)
    if len({*names}) < len(names) or not {*names}.isdisjoint(taken):
        rule = f"each name once, and none of them {', '.join(taken)}"
        raise ValueError(f"--lora {' '.join(names)}: {rule}")
    if names and args.quantization != quantized.NONE:
        raise ValueError(
            f"--quantization {args.quantization} with --lora: folders are held against the weights "
            "of --model, which are rounded then; leave one of them out"
        )
    return Settings(
        name=args.name,
        loras=tuple(names),
        max_bytes=args.max_mb * MB,
        max_seconds=args.max_seconds,
        queue=args.queue,
        timeout_s=args.timeout,
        streams=args.streams,
        step_s=args.step_s,
        idle_s=args.idle_s,
        wait_s=args.wait_ms / 1000,
        api_key=args.api_key,
        hosts=server.names(args.host, args.allow_host, args.api_key),
    )


if __name__ == "__main__":
    sys.exit(main())
