"""The page in a real browser, and what it is made of."""

from __future__ import annotations

import copy
import importlib.util
import re
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from wenet_osum import tasks
from wenet_osum.dataset.audio import write_wav
from wenet_osum.decode import pipeline
from wenet_osum.decode.agreement import kept_to
from wenet_osum.records import Hypothesis, Word

ROOT = Path(__file__).resolve().parents[2]
NOISE = np.random.default_rng(2).normal(0, 0.1, 32000).astype(np.float32)


@pytest.fixture(scope="module")
def shot():
    """tools/bench/serve_shot.py as a module."""
    spec = importlib.util.spec_from_file_location("serve_shot", ROOT / "tools/bench/serve_shot.py")
    sys.modules["serve_shot"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def served(serving):
    with serving(page=True, max_seconds=3.0, max_bytes=400_000) as (url, _):
        yield url


@pytest.fixture(scope="module")
def tab(shot):
    if shot.find_browser() is None:
        pytest.skip(f"no browser: none of {', '.join(shot.BROWSERS)} is installed")
    pytest.importorskip("websocket", reason="websocket-client is not installed")
    with shot.browser() as page:
        yield page


@pytest.fixture
def page(tab, served):
    tab.requested.clear(), tab.faults.clear()
    tab.open(served)
    yield tab
    assert not [fault for fault in tab.faults if "transcriptions" not in fault and "v1/audio/streams" not in fault], tab.faults
    assert not [url for url in tab.requested if not url.startswith((served, "blob:", "data:"))]


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(write_wav(NOISE))
    return path


WIDE = "document.querySelector('.osum svg').viewBox.baseVal.width"


def answer(page) -> None:
    page.click(".osum .go")
    page.until("!document.querySelector('.osum .go').disabled")


def test_a_file_is_answered_as_offline(page, m, wav):
    page.choose_file(wav)
    page.pick(["<GENDER>", "<TRANSCRIBE>", "<EMOTION>"])
    assert page.text(".osum .tags") == "<GENDER> <TRANSCRIBE> <EMOTION>" and page.text(".osum .fields sup") == "2"
    answer(page)
    offline = m(wav, task="<GENDER><TRANSCRIBE><EMOTION>")
    assert page.text(".osum .bars [data-field=emotion] .best span") == offline.labels["emotion"]
    drawn = "[...document.querySelectorAll('.osum .bars [data-field=emotion] .bar')]"
    rows = page.run(f"{drawn}.map((row) => row.innerText.split('\\n').map((x) => x.trim()))")
    ranked = sorted(offline.probs["emotion"].items(), key=lambda pair: -pair[1])
    assert [row[0] for row in rows] == [label for label, _ in ranked] and rows[0][-1] == f"{100 * ranked[0][1]:.1f} %"
    if offline.transcript:
        assert page.text(".osum .transcript") == offline.transcript
    drawn = page.run("document.querySelectorAll('.osum svg .loud').length")
    assert drawn == page.run(WIDE) // 2 > 200 and not page.text(".osum .message")


@pytest.fixture
def spoken(monkeypatch):
    """A model that answers everything in the same way, with words, a label, a reply and what would be markup."""

    def decode(self, samples):
        words = [Word("你", 0.2, 0.6), Word("<img src=x onerror=alert(1)>", 0.6, 1.1), Word("好", 1.5, 1.9)]
        probs = {"emotion": {"happy": 0.75, "sad": 0.25}}
        return [Hypothesis(s.key, s.task, "", "你 <b>好</b>", words, {"emotion": "happy"}, probs, "<i>hm</i>", duration=2.0) for s in samples]

    monkeypatch.setattr(pipeline.Recognizer, "decode", decode)


def test_words_lie_under_their_sound_and_are_played(page, wav, spoken):
    page.choose_file(wav)
    page.pick(["<EMOTION>", "<TRANSCRIBE> <ALIGN>", "<S2TCHAT>"])
    answer(page)
    assert page.run("document.querySelectorAll('.osum svg .word').length") == 3
    sides = "(({x, width}) => [x.baseVal.value, x.baseVal.value + width.baseVal.value])"
    left, right = page.run(f"{sides}(document.querySelectorAll('.osum .word rect')[2])")
    wide = page.run(WIDE)
    assert (left / wide, right / wide) == pytest.approx((0.75, 0.95))  # of 2 s
    page.click(".osum svg .word:last-of-type")
    assert page.run("document.querySelector('.osum .wave').dataset.played") == "1.50-1.90"
    assert page.text(".osum .transcript") == "你 <b>好</b>" and page.text(".osum .reply p") == "<i>hm</i>"
    assert page.run("document.querySelectorAll('.osum img, .osum .reply i, .osum .said b').length") == 0
    assert page.run("document.querySelector('.osum .bars .best i').style.width") == "75%"


def test_labels_without_probabilities_are_shown(page, wav, monkeypatch):
    """A server that decodes freely gives none."""

    def decode(self, samples):
        return [Hypothesis(s.key, s.task, "", labels={"gender": "female"}, duration=2.0) for s in samples]

    monkeypatch.setattr(pipeline.Recognizer, "decode", decode)
    page.choose_file(wav)
    page.pick(["<GENDER>"])
    answer(page)
    assert page.text(".osum .bars [data-field=gender] p") == "female"


def test_words_can_be_read_on_a_phone(page, wav, spoken):
    """Nothing sticks out of the screen, letters keep their size, and turning the phone draws the sound anew."""
    page.choose_file(wav)
    answer(page)
    for wide in (360, 720):
        page.width(wide)
        page.until(f"{WIDE} < {wide} && {WIDE} > {wide} / 2")
        assert page.run("document.documentElement.scrollWidth") <= wide
        assert page.run("document.querySelector('.osum svg .word text').getBoundingClientRect().height") >= 12
        boxes = page.run("[...document.querySelectorAll('.osum section > *')].map((node) => node.getBoundingClientRect().right)")
        assert max(boxes) <= wide
    page.call("Emulation.clearDeviceMetricsOverride")


def test_the_page_speaks_the_browser_s_language_and_can_be_told_another(page, served, wav, spoken):
    assert page.text("h1") == "Speech understanding" and page.text('[data-tag="<EMOTION>"]').startswith("the emotion")
    page.choose_file(wav)
    answer(page)
    page.click('[data-lang="zh"]')
    assert page.text("h1") == "语音理解" and page.text('[data-tag="<EMOTION>"]').startswith("说话人的情感")
    assert page.text(".osum .bars h2") == "说话人的情感" and page.text(".osum .reply h2") == "回复"
    page.open(served, "zh-CN")
    assert page.text("h1") == "语音理解" and page.text(".osum .go") == "识别"


def test_picking_keeps_to_the_rules_of_tasks(page):
    page.pick(["<S2TCHAT>", "<TRANSCRIBE>", "<AGE>", "<TRANSCRIBE> <ALIGN>"])
    assert page.text(".osum .tags") == "<TRANSCRIBE> <ALIGN> <AGE> <S2TCHAT>"
    page.run("(() => { const s = document.querySelector('.osum select'); s.value = 'sgc'; s.dispatchEvent(new Event('change')); })()")
    assert page.text(".osum .tags") == "<TRANSCRIBE> <GENDER>"
    page.click('.osum .fields [data-tag="<TRANSCRIBE>"]')
    assert page.text(".osum .tags") == "<GENDER>" and page.run("document.querySelector('.osum select').value") == ""


def test_the_microphone_is_heard(page):
    page.pick(["<GENDER>"])
    page.click(".osum .record")
    page.until("document.querySelector('.osum .record').classList.contains('on')")
    page.run("new Promise((done) => setTimeout(done, 700))")
    page.click(".osum .record")
    page.until("document.querySelector('.osum .name').textContent.includes(' s')")
    answer(page)
    assert page.text(".osum .bars [data-field=gender] .best span") in ("female", "male")


def test_one_microphone_is_opened_and_its_stream_ends_with_another_sound(page, wav):
    page.run("(window.opened = 0, window.real = navigator.mediaDevices.getUserMedia, 0)")
    page.run("(navigator.mediaDevices.getUserMedia = async (what) => (window.opened++, await new Promise((done) => setTimeout(done, 300)), window.real.call(navigator.mediaDevices, what)), 0)")
    page.run("(document.querySelector('.osum .record').click(), document.querySelector('.osum .record').click(), 0)")
    page.until("document.querySelector('.osum .record').classList.contains('on')")
    assert page.run("window.opened") == 1
    page.choose_file(wav)
    page.until("!document.querySelector('.osum .live').classList.contains('on')")
    page.click(".osum .record")
    # It may have recorded too little to be drawn.
    page.until("!document.querySelector('.osum .record').classList.contains('on')")


def test_words_come_while_one_speaks(page, monkeypatch):
    """The browser's fake microphone beeps, and the model hears a word in each half second of it: settled ones are dark."""

    def decode(self, samples):
        found = []
        for sample in samples:
            words = " ".join(f"w{i}" for i in range(len(sample.features) // 50))
            text = kept_to(self.options.prefix_text or "", words)
            found.append(Hypothesis(sample.key, sample.task, text, transcript=text, duration=len(sample.features) / 100))
        return found

    monkeypatch.setattr(pipeline.Recognizer, "decode", decode)
    page.click(".osum .record")
    page.until("document.querySelector('.osum .live .committed').textContent.startsWith('w0')")
    page.until("document.querySelector('.osum .live .held').textContent.trim() !== ''")
    shades = "['committed', 'held'].map((name) => getComputedStyle(document.querySelector('.osum .live .' + name)).opacity)"
    assert page.run(shades) == ["1", "0.45"]
    page.click(".osum .record")
    page.until("document.querySelector('.osum .name').textContent.includes(' s')")
    page.until("document.querySelector('.osum .live .held').textContent === ''")
    words = page.text(".osum .live .committed").split()
    assert words == [f"w{i}" for i in range(len(words))] and len(words) >= 2 and not page.text(".osum .message")


def test_faults_are_said(page, tmp_path, wav):
    answer(page)
    assert page.text(".osum .message.bad") == "Choose a file or record something first"
    (tmp_path / "long.wav").write_bytes(write_wav(np.zeros(4 * 8000, np.float32), 8000))
    page.choose_file(tmp_path / "long.wav")
    answer(page)
    assert page.text(".osum .message.bad") == "The recording lasts 4.0 s, and 3 s is the most"
    (tmp_path / "text.wav").write_bytes(b"no sound " * 9)
    page.choose_file(tmp_path / "text.wav")
    answer(page)
    assert "no recording this server can read" in page.text(".osum .message.bad")
    (tmp_path / "big.wav").write_bytes(bytes(500_000))
    page.choose_file(tmp_path / "big.wav")
    answer(page)
    assert page.text(".osum .message.bad") == "The file has 0.5 MB, and 0.4 MB is the most"
    page.choose_file(wav)
    page.pick([])
    answer(page)
    assert page.text(".osum .message.bad") == "Pick at least one thing to ask for"


def test_the_page_names_no_path_and_no_other_host_is_allowed(served, model_dir):
    got = httpx.get(served, trust_env=False)
    assert got.status_code == 200 and not any(str(place) in got.text for place in (ROOT, model_dir, Path.home(), sys.prefix))
    assert "connect-src 'self'" in got.headers["content-security-policy"]


CLOSED = ["upload", "queue/join", "run/predict", "process_recording", "proxy=http://a", "file=/etc/passwd", "vibe-edit", "call/x"]


@pytest.mark.parametrize("path", CLOSED)
def test_nothing_of_gradio_s_is_reachable_but_what_the_page_loads(served, path):
    for method in ("GET", "POST"):
        assert httpx.request(method, f"{served}/gradio_api/{path}", trust_env=False).status_code == 404
    assert httpx.post(f"{served}/theme.css", trust_env=False).status_code == 404


def test_the_page_can_ask_for_every_task_in_both_languages(m):
    from wenet_osum.serve.page import HERE, SCRIPTS, configuration
    from wenet_osum.serve.settings import Settings

    conf = configuration(m.recognizer.template, Settings())
    assert [task["name"] for task in conf["tasks"]] == tasks.default_names()
    assert {field["tag"] for field in conf["fields"]} == {tag for task in conf["tasks"] for tag in task["tags"]}
    taught = copy.copy(m.recognizer.template)
    taught.tasks = ["st"]
    more = configuration(taught, Settings())
    assert [task["name"] for task in more["tasks"]] == [*tasks.default_names(), "st"]
    assert {field["tag"]: field["ask"]["en"] for field in more["fields"]}["<TRANSLATE>"] == "a translation into English"
    texts = yaml.safe_load((HERE / "page.yaml").read_text(encoding="utf-8"))
    assert texts["zh"].keys() == texts["en"].keys() and all(field["ask"].keys() >= texts.keys() for field in conf["fields"])
    script = "".join((HERE / name).read_text(encoding="utf-8") for name in ("page.html", *SCRIPTS))
    assert set(re.findall(r'(?:\bsay\(|data-say=)"(\w+)"', script)) == texts["en"].keys()
