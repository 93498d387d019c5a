// The third part of the page's component, in one scope with page.js: words while one speaks. The microphone's samples go to
// the server as they come, in requests one after the other, and each is answered with what has changed.
const BLOCK = 4096; // samples that the browser hands over at once
const WAIT_MS = 100; // for the next block

// 16-bit samples out of those in [-1, 1]
function pcm(samples) {
  const view = new DataView(new ArrayBuffer(2 * samples.length));
  samples.forEach((value, i) => view.setInt16(2 * i, Math.round(Math.max(-1, Math.min(1, value)) * 32767), true));
  return view.buffer;
}

function listen(stream) {
  const context = new AudioContext();
  const source = context.createMediaStreamSource(stream);
  const node = context.createScriptProcessor(BLOCK, 1, 1);
  const live = { said: "", held: "", parts: [], ended: false, rate: context.sampleRate };
  node.onaudioprocess = (event) => live.ended || live.parts.push(pcm(event.inputBuffer.getChannelData(0)));
  source.connect(node);
  node.connect(context.destination); // it runs only when it is connected; what it plays is silence
  live.stop = () => {
    if (!live.ended) context.close();
    live.ended = true;
  };
  state.live = live;
  showLive();
  live.done = follow(live);
  return live;
}

// Sends what has come and shows the answer, until the recording ends; a fault ends the words, not the recording.
async function follow(live) {
  try {
    const { id } = await demand(`v1/audio/streams?task=asr&rate=${Math.round(live.rate)}`);
    for (let last = false; !last; ) {
      last = live.ended;
      const data = new Blob(live.parts.splice(0));
      if (data.size || last) {
        const { events } = await demand(`v1/audio/streams/${id}${last ? "?end=true" : ""}`, data);
        events.forEach((event) => change(live, event));
        showLive();
      } else await new Promise((done) => setTimeout(done, WAIT_MS));
    }
  } catch (error) {
    live.stop();
    if (state.live === live) tell(error.message, true);
  }
}

async function demand(path, body) {
  let response, answer;
  try {
    response = await fetch(path, { method: "POST", body });
    answer = await response.json();
  } catch {
    throw new Error(say("offline"));
  }
  if (!response.ok) throw new Error(answer.error.message);
  return answer;
}

function change(live, event) {
  if (event.type === "transcript.text.delta") live.said += event.delta;
  if (event.type === "transcript.text.held") live.held = event.text;
}

function showLive() {
  const { said, held } = state.live || { said: "", held: "" };
  find(".live").classList.toggle("on", Boolean(state.live));
  find(".live .committed").textContent = said;
  find(".live .held").textContent = held;
}
