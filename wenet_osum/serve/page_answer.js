// The second half of the page's component, in one scope with page.js: what an answer looks like, and how it is heard.

function showAnswer() {
  find(".answer").classList.toggle("on", Boolean(state.samples || state.answer));
  find(".under").style.display = state.samples ? "" : "none";
  const answer = state.answer || {};
  const words = answer.words || [];
  find(".click").style.display = words.length && state.samples ? "" : "none";
  showWave();
  find(".said").replaceChildren(...said(answer));
  const [labels, probs] = [answer.labels || {}, answer.probs || {}];
  find(".bars").replaceChildren(...Object.keys({ ...labels, ...probs }).map((name) => bars(name, probs[name], labels[name])));
  const reply = answer.reply === undefined ? [] : [make("h2", say("reply")), make("p", answer.reply)];
  const texts = Object.entries(answer.texts || {}).flatMap(([name, text]) => [make("h2", named(name)), make("p", text, { "data-field": name })]);
  find(".reply").replaceChildren(...reply, ...texts);
}

function said(answer) {
  if (!("text" in answer)) return [];
  const unread = Object.keys(answer.unread || {}).length ? [make("p", `${say("unread")}: ${answer.raw}`, { class: "hint" })] : [];
  if (!answer.tags.includes("<TRANSCRIBE>")) return unread;
  return [make("h2", say("transcript")), make("p", answer.text || say("nothing"), { class: "transcript" }), ...unread];
}

function named(name) {
  const field = conf.fields.find((other) => other.name === name);
  return field ? field.ask[state.lang] : name;
}

function bars(name, probs, best) {
  const box = make("div", undefined, { "data-field": name });
  box.append(make("h2", named(name)));
  if (!probs) box.append(make("p", best)); // a server without constraints gives no probabilities
  for (const [label, share] of Object.entries(probs || {}).sort((a, b) => b[1] - a[1])) {
    const row = make("div", undefined, { class: label === best ? "bar best" : "bar" });
    const length = make("i");
    length.style.width = `${100 * share}%`;
    const track = make("span");
    track.append(length);
    row.append(make("span", label), track, make("span", `${(100 * share).toFixed(1)} %`));
    box.append(row);
  }
  return box;
}

function showWave() {
  const words = (state.answer || {}).words || [];
  state.drawn = find(".wave").clientWidth;
  find(".wave").replaceChildren(...(state.samples ? [waveform(words)] : []));
}

// One unit is one pixel, so that words can be read on a phone; what is longer than the screen is scrolled.
function waveform(words) {
  const seconds = state.samples.length / state.rate;
  const wide = Math.round(Math.max(find(".wave").clientWidth, words.length ? SECOND_WIDE * seconds : 0, 240));
  const [high, lane] = [110, 24];
  const lanes = place(words, seconds, wide);
  const deep = high + 18 + lane * Math.max(0, ...lanes.map((row) => row.lane + 1));
  const svg = draw("svg", { viewBox: `0 0 ${wide} ${deep}`, width: wide, height: deep, role: "img" });
  svg.append(...columns(wide, high), ...ticks(seconds, wide, high + 12));
  lanes.forEach((row, i) => svg.append(wordBox(words[i], row, high + 18 + lane * row.lane, lane)));
  svg.append(draw("line", { class: "at", y1: 0, y2: high }));
  svg.onclick = (event) => {
    const box = svg.getBoundingClientRect();
    if (!event.target.closest(".word")) play((seconds * (event.clientX - box.left)) / box.width, seconds);
  };
  return svg;
}

function columns(wide, high) {
  const bins = Math.min(MOST_COLUMNS, Math.floor(wide / 2));
  const border = (i) => Math.floor((i * state.samples.length) / bins);
  const peaks = Array.from({ length: bins }, (_, i) => state.samples.subarray(border(i), border(i + 1)).reduce((most, x) => Math.max(most, Math.abs(x)), 0));
  const loudest = Math.max(...peaks, 1e-4);
  return peaks.map((peak, i) => {
    const tall = Math.max(1, (high * peak) / loudest);
    return draw("rect", { class: "loud", x: (i * wide) / bins, y: (high - tall) / 2, width: (0.75 * wide) / bins, height: tall });
  });
}

function ticks(seconds, wide, y) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300].find((s) => (wide * s) / seconds >= 60) || 600;
  const count = Math.floor(seconds / step) + 1;
  return Array.from({ length: count }, (_, i) => {
    const x = (i * step * wide) / seconds;
    const anchor = i === 0 ? "start" : x > wide - 14 ? "end" : "middle";
    return draw("text", { class: "axis", x, y, style: `text-anchor: ${anchor}` }, `${+(i * step).toFixed(1)} s`);
  });
}

// Words under their sound; one that has no room beside the word before it goes a line down.
function place(words, seconds, wide) {
  const ends = [];
  return words.map((word) => {
    const left = Math.min((word.start / seconds) * wide, wide - 4);
    const right = Math.min(wide, Math.max((word.end / seconds) * wide, left + 4)); // the model may name an end behind the sound's
    const letters = [...word.word].reduce((sum, letter) => sum + (letter.charCodeAt(0) > 0x2e7f ? 15 : 8), 6);
    const middle = Math.max(letters / 2, Math.min((left + right) / 2, wide - letters / 2));
    const [from, to] = [Math.min(left, middle - letters / 2), Math.max(right, middle + letters / 2)];
    let lane = ends.findIndex((end) => end <= from);
    if (lane < 0) lane = ends.length;
    ends[lane] = to;
    return { left, right, middle, lane };
  });
}

function wordBox(word, row, top, lane) {
  const group = draw("g", { class: "word", tabindex: 0, role: "button", "aria-label": word.word });
  group.append(draw("title", {}, `${word.start.toFixed(2)} – ${word.end.toFixed(2)} s`));
  group.append(draw("rect", { x: row.left, y: top, width: row.right - row.left, height: lane - 4, rx: 3 }));
  group.append(draw("text", { x: row.middle, y: top + lane - 9 }, word.word));
  group.onclick = () => play(word.start, word.end, group);
  group.onkeydown = (event) => event.key === "Enter" && group.onclick();
  return group;
}

// hearing

function silence() {
  if (!state.playing) return;
  const { source, context, frame, group } = state.playing;
  state.playing = null;
  cancelAnimationFrame(frame);
  source.onended = null;
  source.stop();
  context.close();
  if (group) group.classList.remove("on");
}

function play(from, to, group) {
  silence();
  const seconds = state.samples.length / state.rate;
  const context = new AudioContext();
  const buffer = context.createBuffer(1, state.samples.length, state.rate);
  buffer.copyToChannel(state.samples, 0);
  const source = context.createBufferSource();
  source.buffer = buffer;
  source.connect(context.destination);
  source.onended = silence;
  source.start(0, from, Math.max(0.05, to - from));
  state.playing = { source, context, group, begin: from };
  find(".wave").dataset.played = `${from.toFixed(2)}-${to.toFixed(2)}`; // for whoever looks at the page from outside
  if (group) group.classList.add("on");
  const line = find(".wave line");
  const move = () => {
    const x = (find(".wave svg").viewBox.baseVal.width * Math.min(from + context.currentTime, to)) / seconds;
    if (line) line.setAttribute("x1", x), line.setAttribute("x2", x), (line.style.visibility = "visible");
    if (state.playing) state.playing.frame = requestAnimationFrame(move);
  };
  move();
}
