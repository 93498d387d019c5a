// The page's own component. gradio calls this once with `element` (the markup of page.html) and `props.conf` (see page.py);
// page_answer.js and page_live.js, in the same scope, follow.
// Everything that comes from a model or a file is put on the page as text, never as markup.
const conf = props.conf;
const find = (selector) => element.querySelector(selector);
const state = { lang: "en", chosen: [], blob: null, name: "", samples: null, rate: 1, answer: null, playing: null, recorder: null, live: null };
const SECOND_WIDE = 60; // pixels of the waveform with words, at least
const MOST_COLUMNS = 4000; // of the waveform
const TRIES = 20; // of a request the server is too busy for

function make(tag, text, attributes = {}) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function draw(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function say(key, values = {}) {
  return Object.entries(values).reduce((text, [name, value]) => text.replace(`{${name}}`, value), conf.texts[state.lang][key]);
}

function tell(text, bad = false) {
  find(".message").textContent = text;
  find(".message").classList.toggle("bad", bad);
}

// what the page says, and what can be asked

function speak(lang) {
  state.lang = lang;
  find("main").lang = lang;
  for (const node of element.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  for (const node of element.querySelectorAll("[data-lang]")) node.classList.toggle("on", node.dataset.lang === lang);
  find(".limits").textContent = say("limits", { seconds: conf.limits.seconds, mb: conf.limits.mb });
  if (state.recorder) find(".record").textContent = say("stop");
  tell("");
  showFields();
  if (state.answer) showAnswer();
}

function showFields() {
  const buttons = conf.fields.map((field) => {
    const place = state.chosen.indexOf(field.tag);
    const button = make("button", field.ask[state.lang], { "data-tag": field.tag, "aria-pressed": place >= 0 });
    if (place >= 0) button.append(make("sup", place + 1));
    button.classList.toggle("on", place >= 0);
    button.onclick = () => pick(field.tag);
    return button;
  });
  find(".fields").replaceChildren(...buttons);
  const tags = state.chosen.join(" ");
  const named = conf.tasks.find((task) => task.tags.join(" ") === tags);
  const options = [make("option", say("own"), { value: "" }), ...conf.tasks.map((task) => make("option", task.name, { value: task.name }))];
  find("select").replaceChildren(...options);
  find("select").value = named ? named.name : "";
  find(".tags").textContent = tags;
}

// Two ways to ask for the same thing, with and without times, take each other's place, and so do two texts that come last.
function pick(tag) {
  const of = (name) => conf.fields.find((field) => field.tag === name);
  if (state.chosen.includes(tag)) state.chosen = state.chosen.filter((other) => other !== tag);
  else {
    const twin = of(tag).kind === "label" ? -1 : state.chosen.findIndex((other) => of(other).kind === of(tag).kind);
    if (twin >= 0) state.chosen[twin] = tag;
    else state.chosen.push(tag);
  }
  state.chosen.sort((a, b) => (of(a).kind === "reply") - (of(b).kind === "reply"));
  showFields();
}

// sound: a file, or the microphone

function take(blob, name) {
  state.taking = look(blob, name);
}

async function look(blob, name) {
  silence();
  Object.assign(state, { blob, name, samples: null, answer: null });
  if (!state.live?.keep) state.live?.stop(), (state.live = null);
  else state.live.keep = false;
  showLive();
  find(".name").textContent = name;
  tell("");
  try {
    const audio = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(await blob.arrayBuffer());
    if (blob !== state.blob) return;
    const channels = [...Array(audio.numberOfChannels).keys()].map((i) => audio.getChannelData(i));
    state.samples = channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
    state.rate = audio.sampleRate;
    find(".name").textContent = `${name} · ${audio.duration.toFixed(1)} s`;
  } catch {
    if (blob === state.blob) tell(say("unreadable"));
  }
  showAnswer();
}

// 16-bit mono WAV out of samples in [-1, 1], for what the server does not read: recordings of the browser and videos
function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, word) => [...word].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"), view.setUint32(4, 36 + 2 * samples.length, true), text(8, "WAVEfmt "), view.setUint32(16, 16, true);
  view.setUint16(20, 1, true), view.setUint16(22, 1, true), view.setUint32(24, rate, true), view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true), view.setUint16(34, 16, true), text(36, "data"), view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, Math.round(Math.max(-1, Math.min(1, value)) * 32767), true));
  return new Blob([view], { type: "audio/wav" });
}

async function upload() {
  const head = new Uint8Array(await state.blob.slice(0, 4).arrayBuffer());
  const mark = String.fromCharCode(...head);
  const known = ["RIFF", "fLaC", "OggS"].includes(mark) || mark.startsWith("ID3") || (head[0] === 255 && head[1] >= 224);
  return known || !state.samples ? state.blob : wav(state.samples, state.rate);
}

async function record() {
  if (state.recorder) return state.recorder.stop();
  let stream;
  find(".record").disabled = true; // a second click would open a second microphone
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch {
    return tell(say("no_microphone"), true);
  } finally {
    find(".record").disabled = false;
  }
  const parts = [];
  const recorder = new MediaRecorder(stream);
  const limit = setTimeout(() => recorder.stop(), 1000 * conf.limits.seconds);
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = () => {
    clearTimeout(limit);
    live.keep = true;
    live.stop();
    stream.getTracks().forEach((track) => track.stop());
    state.recorder = null;
    find(".record").classList.remove("on");
    find(".record").textContent = say("record");
    take(new Blob(parts, { type: recorder.mimeType }), say("record"));
  };
  recorder.start();
  const live = listen(stream);
  state.recorder = recorder;
  find(".record").classList.add("on");
  find(".record").textContent = say("stop");
}

// asking

function refusal() {
  if (!state.blob) return say("no_sound");
  if (!state.chosen.length) return say("no_field");
  const seconds = state.samples ? state.samples.length / state.rate : 0;
  if (seconds > conf.limits.seconds) return say("too_long", { is: seconds.toFixed(1), seconds: conf.limits.seconds });
  return null;
}

async function ask() {
  find(".go").disabled = true;
  try {
    await state.taking; // a file may still be being decoded
    const refused = refusal();
    if (refused) return tell(refused, true);
    const asked = state.blob;
    const blob = await upload();
    const mb = blob.size / 1e6;
    if (mb > conf.limits.mb) return tell(say("too_large", { is: mb.toFixed(1), mb: conf.limits.mb }), true);
    tell(say("working"));
    const answer = await send(blob, state.chosen.join(" "));
    if (asked !== state.blob) return; // another sound was chosen meanwhile
    state.answer = answer;
    tell("");
    showAnswer();
  } catch (error) {
    tell(error.message, true);
  } finally {
    find(".go").disabled = false;
  }
}

async function send(blob, task) {
  for (let tries = 0; ; tries++) {
    const form = new FormData();
    form.append("file", blob, "sound");
    form.append("task", task);
    form.append("response_format", "verbose_json");
    for (const input of element.querySelectorAll(".known .on input")) if (input.value.trim()) form.append(input.name, input.value);
    let response, body;
    try {
      response = await fetch("v1/audio/transcriptions", { method: "POST", body: form });
      body = await response.json();
    } catch {
      throw new Error(say("offline"));
    }
    if (response.ok) return body;
    if (response.status !== 429 || tries === TRIES) throw new Error(body.error.message);
    const seconds = Number(response.headers.get("retry-after")) || 1;
    tell(say("again", { seconds }));
    await new Promise((done) => setTimeout(done, 1000 * seconds));
  }
}

// wiring

for (const node of element.querySelectorAll("[data-lang]")) node.onclick = () => speak(node.dataset.lang);
find('input[type="file"]').onchange = (event) => event.target.files.length && take(event.target.files[0], event.target.files[0].name);
for (const node of element.querySelectorAll("[data-slot]")) node.classList.toggle("on", conf.slots.includes(node.dataset.slot));
find(".record").onclick = record;
find(".go").onclick = ask;
find(".play").onclick = () => (state.playing ? silence() : play(0, state.samples.length / state.rate));
find("select").onchange = (event) => {
  const task = conf.tasks.find((other) => other.name === event.target.value);
  if (task) state.chosen = [...task.tags];
  showFields();
};
new ResizeObserver(() => state.samples && find(".wave").clientWidth !== state.drawn && showWave()).observe(find(".wave"));
const zone = find(".sound");
zone.ondragover = (event) => (event.preventDefault(), zone.classList.add("over"));
zone.ondragleave = () => zone.classList.remove("over");
zone.ondrop = (event) => {
  event.preventDefault();
  zone.classList.remove("over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0], event.dataTransfer.files[0].name);
};
state.chosen = [...(conf.tasks.find((task) => task.name === "ser") || conf.tasks[0]).tags];
speak(navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
