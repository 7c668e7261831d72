// The exported page's model: what a notebook's Python would answer, from what the page holds.

function bytes(text) {
  const raw = atob(text);
  const array = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) array[i] = raw.charCodeAt(i);
  return new DataView(array.buffer);
}

function staticModel(page) {
  const values = { listing: page.listing, modalities: page.modalities, index: page.first, view: "timeline", layer: -1, head: -1, token: 0,
    lm_layer: -1, lm_head: -1, effects_of: "modalities", busy: false, trouble: "" };
  const listeners = {};
  const notify = (name) => (listeners[`change:${name}`] || []).forEach((call) => call());
  const open = (index) => {
    const one = page.utterances[index];
    Object.assign(values, { index, payload: one.payload, cross: bytes(one.cross), self_attention: bytes(one.self_attention),
      clip: bytes(one.clip), effects: one.effects });
  };
  open(page.first);
  return {
    get: (name) => values[name],
    set(name, value) {
      values[name] = value;
      if (name === "index") { open(value); notify("payload"); }
      if (name === "index_again") { open(values.index); notify("payload"); }
      if (name === "without") {
        const one = page.utterances[values.index];
        const order = page.modalities.map((m) => m.name).filter((m) => value.includes(m));
        values.payload = { ...one.payload, ...(order.length ? one.without[order.join(",")] : {}), without: order,
          note: order.length ? "Pictures below: as recorded. " : "" };
        notify("payload");
      }
    },
    save_changes() {},
    on: (event, call) => { (listeners[event] ||= []).push(call); },
    off: (event, call) => { listeners[event] = (listeners[event] || []).filter((c) => c !== call); },
  };
}

render({ model: staticModel(JSON.parse(document.getElementById("data").textContent)), el: document.getElementById("explorer") });
