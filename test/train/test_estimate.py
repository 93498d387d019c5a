"""Costs counted on the meta device, checked against plain arithmetic and against real tensors; the shipped confs at full depth."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2Config, WhisperConfig

from wenet_osum import config
from wenet_osum.bin import estimate as command
from wenet_osum.models import trainable
from wenet_osum.train.dry_run import dry_run, materialize, shallow
from wenet_osum.train.estimate import Mean, batch_of, estimate, meta_model, states_after
from wenet_osum.train.meta_pass import run_pass

CONFS = Path(__file__).resolve().parents[2] / "examples/osum/conf"


def whisper(name: str) -> WhisperConfig:
    width, layers, heads = {"medium": (1024, 24, 16), "small": (768, 12, 12)}[name]
    sizes = {"encoder_layers": layers, "decoder_layers": layers, "encoder_attention_heads": heads, "decoder_attention_heads": heads}
    return WhisperConfig(vocab_size=51865, d_model=width, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width, **sizes)


def qwen(name: str) -> Qwen2Config:
    if name == "7b":
        sizes = {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
        return Qwen2Config(**sizes, num_key_value_heads=4, tie_word_embeddings=False, eos_token_id=151643)
    sizes = {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
    return Qwen2Config(**sizes, num_key_value_heads=2, tie_word_embeddings=True, eos_token_id=151643)


MODELS = {"7b": ("medium", "7b", 80, 8), "0.5b": ("small", "0.5b", 24, 1)}  # conf folder → Whisper, LLM, GiB of a device, devices


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """config.json files, as a folder of published weights would hold them."""
    root = tmp_path_factory.mktemp("sizes")
    for name in ("medium", "small"):
        whisper(name).save_pretrained(root / name)
    for name in ("7b", "0.5b"):
        qwen(name).save_pretrained(root / name)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("size", MODELS)
def test_shipped_phases_at_full_depth(size, folders, capsys):
    """Utterances of 2 s fill the token budget, which takes the most memory."""
    speech, llm, memory, devices = MODELS[size]
    phases = [str(CONFS / size / f"train_{name}.yaml") for name in ("1_whisper", "2_adapter", "3_encoder", "4_lora", "4_full")]
    options = ["--whisper", str(folders / speech), "--llm", str(folders / llm), "--memory_gib", str(memory), "--devices", str(devices)]
    assert command.main(["--config", *phases, *options, "--seconds", "2", "--hours", "1000"]) == 0, "a phase does not fit"
    said = capsys.readouterr().out
    whole = {"7b": "7,615,616,512", "0.5b": "494,032,768"}[size]
    assert said.count(whole) == 4 + 1, "four phases have the LLM, one of them trains all of it"
    assert said.count("TFLOP/s (counted)") == 5 and said.count("1000 h of audio") == 5


def test_the_real_model_costs_what_arithmetic_says():
    """8 s: 100 speech tokens, 2 borders, 60 of text; the LLM forward and its input gradients, the encoder forward and backward."""
    conf = config.load(CONFS / "7b/train_3_encoder.yaml")
    found = estimate(conf, whisper("medium"), qwen("7b"))
    llm = qwen("7b")
    assert found.positions == 162
    attention = 2 * llm.hidden_size * llm.hidden_size + 2 * llm.hidden_size * 512
    layers = 28 * (attention + 3 * llm.hidden_size * llm.intermediate_size)
    products = 2 * 2 * 162 * layers + 2 * 2 * 40 * llm.hidden_size * llm.vocab_size
    causal = 28 * 28 * 3 * 2 * 162 * 162 * 128
    encoder = 3 * 2 * 400 * 24 * (4 * 1024**2 + 2 * 1024 * 4096)
    assert found.flops / found.utterances == pytest.approx(products + causal + encoder, rel=0.06), "adapter and convolutions are the rest"
    assert found.flops / found.utterances == pytest.approx(5.15e12, rel=0.01), "measured on real tensors once"
    assert found.memory["frozen weights, 2 bytes each"] == 2 * (found.parameters - found.trained)
    assert found.memory["AdamW's moments, 8 bytes each"] == 8 * found.trained == 8 * 357_650_944


def small(**changes):
    parts = {"adapter.*": {}, "encoder.*": {}, "speech_boundary.*": {}}
    model = {"whisper": "w", "llm": "l", "adapter_conf": {"layers": 1, "heads": 2, "ffn": 64}}
    return config.from_dict({"model": model, "train_parts": parts, "max_steps": 1, "batch": {"max_frames": 1000, "max_tokens": 900}} | changes)


def small_sizes():
    encoder = {"encoder_layers": 3, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
    speech = WhisperConfig(vocab_size=50, d_model=64, encoder_ffn_dim=128, decoder_ffn_dim=128, **encoder, **ids)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return speech, Qwen2Config(vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=3, **heads, eos_token_id=0, bos_token_id=0)


def test_frozen_parts_cost_less_and_checkpointing_trades():
    sizes, mean = small_sizes(), Mean(2.0, 5, 7)
    plain = estimate(small(), *sizes, mean)
    frozen = estimate(small(train_parts={"adapter.*": {}}), *sizes, mean)
    again = estimate(small(checkpointing=True), *sizes, mean)
    assert frozen.flops < plain.flops and frozen.total < plain.total
    kept = "activations kept for the backward pass"
    assert again.flops == plain.flops and again.recomputed > 0 and again.memory[kept] < 0.6 * plain.memory[kept]
    shared = estimate(small(engine="fsdp"), *sizes, mean, devices=4)
    assert shared.memory["frozen weights, 4 bytes each"] == pytest.approx(plain.memory["frozen weights, 4 bytes each"] / 4)


def test_without_answers_the_llm_costs_memory_alone():
    """At ce_weight 0 it does not run (models/objective.py), however large it is."""
    (speech, llm), mean = small_sizes(), Mean(2.0, 5, 7)
    parts = {"adapter.*": {}, "encoder.*": {}}
    entry = {"name": "ctc", "weight": 1.0}
    with_answers = small(train_parts=parts)
    alone = small(train_parts=parts)
    alone.model.ce_weight, alone.model.losses = 0.0, [entry]
    deeper = Qwen2Config.from_dict(llm.to_dict() | {"num_hidden_layers": 9, "layer_types": None})
    plain, without, deep = (
        estimate(conf, speech, size, mean)
        for conf, size in ((with_answers, llm), (alone, llm), (alone, deeper))
    )
    assert deep.flops == without.flops < plain.flops
    kept = "activations kept for the backward pass"
    assert deep.memory[kept] == without.memory[kept] < plain.memory[kept]
    assert "one chunk of logits" in plain.memory and "one chunk of logits" not in without.memory
    frozen = "frozen weights, 4 bytes each"
    assert deep.memory[frozen] > without.memory[frozen] == plain.memory[frozen] > 0
    adapter = estimate(small(train_parts={"adapter.*": {}}), speech, llm, mean)
    assert without.flops > 0.2 * adapter.flops, "the encoder's and the adapter's stay"


def test_label_queries_are_counted_where_a_loss_hears_them():
    """At ce_weight 0, as in phase 2 of the recipe natural; without that loss nothing reaches them."""
    sizes, mean = small_sizes(), Mean(2.0, 5, 7)

    def conf(*losses):
        made = small(train_parts={"adapter.input.*": {}, "adapter.label_queries.*": {}})
        made.model.adapter, made.model.ce_weight = "ctc_shrink", 0.0
        made.model.adapter_conf = {"factor": 4, "heads": 2, "label_queries": ["emotion", "age"]}
        made.model.losses = [{"name": name, "weight": 1.0} for name in losses]
        return made

    counted = estimate(conf("ctc", "labels"), *sizes, mean)
    assert counted.flops > 0
    with pytest.raises(ValueError, match=r"runs no adapter\.label_queries"):
        estimate(conf("ctc"), *sizes, mean)


def test_what_is_kept_equals_what_real_tensors_keep():
    """The same pass on the CPU with the real attention: bytes autograd holds, within the difference of the attention kernels."""
    conf, sizes, mean = small(), small_sizes(), Mean(2.0, 5, 7)
    counted = estimate(conf, *sizes, mean)
    from wenet_osum.models import trainable

    model = materialize(meta_model(conf.model, *sizes))
    trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    seen, own = {}, {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(tensor):
        place = tensor.untyped_storage().data_ptr()
        if place not in own and tensor.is_floating_point():
            seen[place] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        model(batch_of(model, mean, counted.utterances, "cpu"))
    real = sum(size for size, _ in seen.values())
    assert counted.memory["activations kept for the backward pass"] == pytest.approx(real, rel=0.15)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(CONFS.parents[2] / "tools/bench"))
    import estimate_memory

    return estimate_memory


MEASURED = [("osum/conf/0.5b", 0, 4), ("osum/conf/7b", 2, 4), ("osum/conf/7b", 4, 1), ("toy/conf", 0, 4), ("natural/conf", 2, 4), ("soundwave/conf", 0, 4)]


@pytest.mark.parametrize(("recipe", "number", "utterances"), MEASURED)
def test_a_real_step_of_a_reduced_conf_takes_what_is_counted(bench, recipe, number, utterances, tmp_path):
    """With the head of CTC, classes, states from disk, an LLM below what trains, and FSDP, which exchanges the gradients of the embeddings at once: within a tenth."""
    from wenet_osum import dist

    args = SimpleNamespace(divisor=16, layers=2, utterances=utterances, seconds=4.0)
    template, classes = bench.template_with_classes(str(tmp_path), 60)
    phase = bench.phases_of(recipe, args.divisor, classes)[number]
    world = dist.start(1)
    try:
        assert abs(bench.row(phase, bench.RECIPES[recipe], template, args, world)) < 0.1
    finally:
        dist.stop()


def test_what_answers_is_told_apart_in_phase_1():
    """It has gone when the gradients of CTC come. States from disk do not pass the whole encoder, whose upper layer trains here."""
    model = {"kind": "whisper", "whisper": "w", "ce_weight": 0.7, "losses": [{"name": "ctc", "weight": 0.3, "commitment": 1.0}]}
    parts = {"encoder.layers.2.*": {}, "decoder.*": {}, "ctc_head.*": {}}
    found = []
    for features in ({"features": "cpu"}, {"features": "encoded", "cache": {"after": 2}}):
        conf = small(model=model, train_parts=parts, **features)
        counted = estimate(conf, small_sizes()[0], None, Mean(1.0, 3, 4))
        built = meta_model(conf.model, small_sizes()[0], None)
        trainable.apply_train_parts(built, conf.train_parts, conf.optim)
        batch = batch_of(built, counted.mean, counted.utterances, "meta", states_after(built, conf))
        costs = run_pass(built.train(), batch, False)
        assert 0 < costs.answering < 0.8 * costs.kept
        found.append(costs.answering)
    assert found[0] == found[1]


def test_the_bench_of_memory_measures_every_shipped_conf(bench):
    found = {f"{recipe}/train_{name}.yaml" for recipe, row in bench.RECIPES.items() for name in row.names}
    examples = CONFS.parents[1]
    assert found == {str(path.relative_to(examples)) for path in examples.glob("**/train_*.yaml")}


def test_an_utterance_beyond_the_budgets_is_told():
    with pytest.raises(ValueError, match=r"batch\.max_frames 1000"):
        estimate(small(), *small_sizes(), Mean(11.0))


def test_faults_and_limits_have_their_status(folders, tmp_path, capsys):
    later = str(CONFS / "0.5b/train_3_encoder.yaml")
    assert command.main(["--config", later]) == 1
    assert "give the confs before it, or --whisper and --llm" in capsys.readouterr().err
    options = ["--whisper", str(folders / "small"), "--llm", str(folders / "0.5b")]
    assert command.main(["--config", later, *options, "--memory_gib", "8"]) == 3
    assert "takes more than 80% of 8 GiB" in capsys.readouterr().err
    assert command.main(["--config", later, *options, "--override", "batch.max_framez=1"]) == 2
    assert command.main(["--config", later, "--whisper", str(tmp_path), "--llm", str(folders / "0.5b")]) == 1
    assert "no config.json" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["osum", "whisper", "lora", "shrink"])
def test_a_trial_steps_saves_and_loads(kind):
    changes = {}
    if kind == "whisper":
        changes = {"model": {"kind": "whisper", "whisper": "w", "ce_weight": 0.7, "losses": [{"name": "ctc", "weight": 0.3}]}, "train_parts": {"*": {}}}
    if kind == "shrink":
        losses = [{"name": "ctc", "weight": 0.3, "scores": "distance"}, {"name": "distill", "weight": 1.0}]
        changes["model"] = {"whisper": "w", "llm": "l", "adapter": "ctc_shrink", "adapter_conf": {"factor": 2, "heads": 2}, "lora": {"r": 2}, "losses": losses}
        changes["train_parts"] = {"*lora*": {}, "adapter.*": {}}
    if kind == "lora":
        changes = {"dtype": "bfloat16", "train_parts": {"*lora*": {}, "adapter.*": {}}}
        changes["model"] = {"whisper": "w", "llm": "l", "lora": {"r": 2}, "adapter_conf": {"layers": 1, "heads": 2, "ffn": 64}}
    speech, llm = small_sizes()
    found = dry_run(small(**changes), speech, None if kind == "whisper" else llm, Mean(1.0, 3, 4), layers=2)
    assert found.passed, found
    assert found.moved == found.trained or kind in ("lora", "shrink")


@pytest.mark.parametrize("kind", ["osum", "whisper"])
def test_a_trial_takes_a_file_of_classes_and_parts_of_deep_layers(kind, tmp_path):
    """Token texts of the real LLM, and layers that a shallow model lacks, as examples/natural has them."""
    (tmp_path / "classes.json").write_text(json.dumps(["a", "b", "Ġthe"]))
    losses = [{"name": "ctc", "weight": 1.0, "classes": str(tmp_path / "classes.json")}]
    model = {"whisper": "w", "losses": losses, "ce_weight": 0.5}
    parts = {"encoder.layers.[01].*": {}, "encoder.layers.[789].*": {}}
    if kind == "osum":
        model |= {"llm": "l", "adapter_conf": {"layers": 1, "heads": 2, "ffn": 64}}
        parts["adapter.*"] = {}
    else:
        model["kind"] = "whisper"
    speech, llm = small_sizes()
    found = dry_run(small(model=model, train_parts=parts), speech, llm if kind == "osum" else None, Mean(1.0, 3, 4), layers=2)
    assert found.passed, found


def test_a_trial_that_loses_a_tensor_fails(monkeypatch):
    from wenet_osum.train import dry_run as module

    original = module.build.load

    def load(folder):
        model = original(folder)
        with torch.no_grad():
            next(iter(model.parameters())).add_(1.0)
        return model

    monkeypatch.setattr(module.build, "load", load)
    found = dry_run(small(), *small_sizes(), Mean(1.0, 3, 4))
    assert not found.passed and len(found.differences) == 1


def test_few_layers_keep_their_widths():
    cut = shallow(qwen("7b"), 2)
    assert (cut.num_hidden_layers, len(cut.layer_types), cut.hidden_size, cut.vocab_size) == (2, 2, 3584, 152064)
    assert shallow(qwen("7b"), None).num_hidden_layers == 28 and shallow(whisper("medium"), 2).encoder_layers == 2


@pytest.mark.slow
def test_true_widths_and_vocabulary_of_the_small_sibling():
    """2 + 2 layers of Whisper-small and Qwen2-0.5B: one step, save, load. The 7B's widths take 11.2 GiB and a minute: `estimate --dry_run`."""
    conf = config.load(CONFS / "0.5b/train_4_lora.yaml")
    found = dry_run(conf, whisper("small"), qwen("0.5b"), Mean(2.0, 10, 20), layers=2)
    assert found.passed, found
    assert found.peak_gib < 12


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator: full depth does not fit a test on the CPU")
@pytest.mark.parametrize("size", MODELS)
def test_full_depth_on_an_accelerator(size):
    speech, llm, memory, _ = MODELS[size]
    if torch.accelerator.get_memory_info()[1] / 2**30 < 0.75 * memory:
        pytest.skip(f"needs {memory} GiB")
    found = dry_run(config.load(CONFS / size / "train_4_lora.yaml"), whisper(speech), qwen(llm), Mean(8.0), count=4, layers=None)
    assert found.passed, found


def test_each_phase_is_counted_with_its_own_sizes_and_what_it_takes_over(folders, tmp_path, capsys):
    parts = "train_parts: {'adapter.*': {}}, max_steps: 1"
    sizes = f"whisper: {folders / 'small'}, adapter: linear, adapter_conf: {{factor: 4}}"
    texts = {
        "one": f"{{model: {{{sizes}, llm: {folders / '0.5b'}, encoder_conf: {{pad_s: 30}}, time_marks: 0.4}}, {parts}}}",
        "next": f"{{model: {{init_from: {tmp_path / 'none'}}}, {parts}}}",
        "other": f"{{model: {{{sizes}, llm: {folders / '7b'}}}, {parts}}}",
    }
    paths = {}
    for name, text in texts.items():
        paths[name] = tmp_path / f"{name}.yaml"
        paths[name].write_text(text)
    assert command.main(["--config", *map(str, paths.values())]) == 0
    one, following, other = capsys.readouterr().out.split("\n\n")[:3]
    assert one.splitlines()[1:] == following.splitlines()[1:], "padding and time marks come from the phase before"
    assert command.main(["--config", str(paths["other"])]) == 0
    assert capsys.readouterr().out.split("\n\n")[0] == other
    assert command.main(["--config", str(paths["one"]), "--override", "model.time_marks=null"]) == 0
    assert capsys.readouterr().out.split("\n\n")[0].splitlines()[1:] != one.splitlines()[1:]


def test_a_phase_has_the_adapter_and_lora_of_where_it_begins(folders, tmp_path, capsys):
    """Whether that folder is there, or will be made by the phase before."""
    sizes = f"{{whisper: {folders / 'small'}, llm: {folders / '0.5b'}, adapter: linear, adapter_conf: {{factor: 4}}, lora: {{r: 4}}}}"
    first, then = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text(f"{{model: {sizes}, train_parts: {{'adapter.*': {{}}, '*lora*': {{}}}}, max_steps: 1}}")
    then.write_text(f"{{model: {{init_from: {tmp_path / 'one'}}}, train_parts: {{'adapter.*': {{}}, '*lora*': {{}}}}, max_steps: 1}}")
    assert command.main(["--config", str(first), str(then)]) == 0
    one, two = capsys.readouterr().out.split("\n\n")[:2]
    assert one.splitlines()[1:] == two.splitlines()[1:]

    folder = tmp_path / "one"
    conf = config.load(first)
    model = meta_model(conf.model, whisper("small"), qwen("0.5b"))
    model.config.save_pretrained(folder)
    model.lora.save_pretrained(folder / "lora")
    assert command.main(["--config", str(then)]) == 0
    assert capsys.readouterr().out.split("\n\n")[0].splitlines()[1:] == one.splitlines()[1:]
