"""Write a trained model as a folder for model hubs, with processor, settings and a model card.

The folder loads with AutoModel and AutoProcessor of transformers once wenet_osum is imported, and
with every command here. LoRA stays apart in OUT/lora unless --merge_lora is given. The card names
what the model was made from, as far as the training configurations tell, with licenses.

--llm also writes OUT/llm, the LLM alone with LoRA merged, for servers that take prompt embeddings,
and OUT/vllm_example.py; it is checked that the LLM alone continues embeddings of speech as it does
in the model.

--gguf writes OUT/llm.gguf for llama.cpp, OUT/speech.safetensors with encoder and adapter, and
OUT/llama_cpp_example.py, which joins them.

examples:
  wenet_osum export --model exp/4_lora/final --score exp/4_lora/score/score.json --out exp/hub
  wenet_osum export --model exp/4_lora/final --merge_lora --llm --uses Whisper Qwen2 \\
    --license apache-2.0 --out exp/hub

exit status:
  0 done, 1 the model cannot be exported, 2 a fault of the arguments
"""

from __future__ import annotations

import argparse
import sys

from wenet_osum import lookup
from wenet_osum.bin._arguments import add_plugins, new_parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export", __doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="model folder or hub name")
    add("--out", required=True, metavar="DIR", help="folder to write; must not exist yet")
    add(
        "--merge_lora",
        action="store_true",
        help="add the LoRA adapters to the weights they adapt",
    )
    add_plugins(parser)
    add("--score", metavar="JSON", help="score.json of `wenet_osum score`, for the card")
    add(
        "--llm",
        action="store_true",
        help="also write the LLM alone and the example for vLLM",
    )
    add(
        "--gguf",
        metavar="TYPE",
        help="also write the LLM for llama.cpp with weights of this type (f32, f16, q8_0, q4_0), "
        "what makes speech for it, and an example; needs requirements/llama_cpp.txt",
    )
    add(
        "--uses",
        nargs="+",
        default=[],
        metavar="NAME",
        help="more that it was made from, names of docs/licenses.md",
    )
    add(
        "--license",
        metavar="ID",
        help="license of these weights for the card, e.g. apache-2.0",
    )
    add(
        "--licence",
        action=lookup.RenamedOption,
        const="write --license",
        help=argparse.SUPPRESS,
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Export one model and print what was written. Returns the exit status."""
    args = parse(argv)
    try:
        from wenet_osum.hub.export import export

        lookup.add_plugins(args.plugins)
        lines = export(
            args.model,
            args.out,
            args.merge_lora,
            args.score,
            args.llm,
            args.gguf,
            args.uses,
            args.license,
        )
    except (ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    print(*lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
