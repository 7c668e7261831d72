// The exported page's model: what a notebook's Python would answer, from what the page holds.

function bytes(text) {
  const raw = atob(text);
  const array = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) array[i] = raw.charCodeAt(i);
  return new DataView(array.buffer);
}

function staticModel(kept) {
  const values = { listing: kept.listing, index: kept.first, view: "timeline", layer: -1, head: -1, token: 0,
    lm_layer: -1, lm_head: -1, effects_of: "modalities", busy: false, trouble: "" };
  const heard = {};
  const tell = (name) => (heard[`change:${name}`] || []).forEach((call) => call());
  const open = (index) => {
    const one = kept.utterances[index];
    Object.assign(values, { index, payload: one.payload, cross: bytes(one.cross), self_attention: bytes(one.self_attention),
      clip: bytes(one.clip), effects: one.effects });
  };
  open(kept.first);
  return {
    get: (name) => values[name],
    set(name, value) {
      values[name] = value;
      if (name === "index") { open(value); tell("payload"); }
      if (name === "index_again") { open(values.index); tell("payload"); }
      if (name === "without") {
        const one = kept.utterances[values.index];
        const order = ["words", "voice", "face"].filter((m) => value.includes(m));
        values.payload = { ...one.payload, ...(order.length ? one.without[order.join(",")] : {}), without: order,
          note: order.length ? "Pictures below: as recorded. " : "" };
        tell("payload");
      }
    },
    save_changes() {},
    on: (event, call) => { (heard[event] ||= []).push(call); },
    off: (event, call) => { heard[event] = (heard[event] || []).filter((c) => c !== call); },
  };
}

render({ model: staticModel(JSON.parse(document.getElementById("data").textContent)), el: document.getElementById("explorer") });
