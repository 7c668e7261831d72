// The explorer's front end. It draws what it is given and asks for what it lacks; every change of layer, head,
// token or view is drawn from numbers that are here already. The same code runs as a notebook widget (`render`
// with anywidget's model) and in the exported page (with a model that answers from what the page holds).

// Colours and scales are those of `plots/style.py`, written before this file as STYLE.
const { grey: GREY, grid: GRID, line: LINE, colours: COLOUR, tracks: TRACKS, sequential: SEQUENTIAL, diverging: DIVERGING,
  timesUniform: TIMES_UNIFORM } = STYLE;
const UP = DIVERGING[DIVERGING.length - 1][1], DOWN = DIVERGING[0][1];

const VIEWS = {
  timeline: { name: "Timeline: tokens over time", uses: ["layer", "head"] },
  layers: { name: "Depth: one token, all MM Blocks", uses: ["token", "head"] },
  heads: { name: "Heads: one token, one MM Block", uses: ["token", "layer"] },
  words: { name: "Words: self-attention to the text", uses: ["lm_layer", "lm_head"] },
  sentiment: { name: "Sentiment through depth", uses: ["token"] },
  update: { name: "Cross-attention update, by depth", uses: [] },
  similarity: { name: "Similarity of tokens", uses: ["lm_layer"] },
  effects: { name: "Effects: what matters", uses: ["effects_of"] },
};
const OVER_TIME = ["timeline", "layers", "heads"];
const NOTES = {
  timeline: "Blue: the token looks there more than an even spread would (blank); orange: less. Looking is not mattering: see Effects.",
  layers: "Where this token looks, from the first MM Block to the last.",
  heads: "Where each head of this MM Block looks for this token.",
  words: "Inside the LM. Attention is often parked on the first token where there is nothing to read.",
  sentiment: "The heads, read too early on purpose: when does the answer become readable?",
  update: "Norm of what cross-attention adds, relative to the token's state. Long is not important.",
  similarity: "Cosine between the tokens' states. Close to 1: they do the same.",
  effects: "With minus without, one thing at a time. Blue pushes the sentiment up, red down.",
};

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const signed = (x) => (x === null || x === undefined || Number.isNaN(x) ? "–" : (x >= 0 ? "+" : "−") + Math.abs(x).toFixed(2));

// Weights arrive as uint16 of their largest value.
function unpack(view, top) {
  if (!view || !view.byteLength) return null;
  const whole = new Uint16Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  return { values: whole, unit: (top || 1) / 65535 };
}

// Mean of a [A, B, C, D] array over the axes whose chosen index is null, as a matrix [C, D].
function plane(packed, shape, a, b) {
  const [A, B, C, D] = shape;
  const rows = [];
  const as = a === null ? [...Array(A).keys()] : [a], bs = b === null ? [...Array(B).keys()] : [b];
  const scale = packed.unit / (as.length * bs.length);
  for (let c = 0; c < C; c++) {
    const row = new Float64Array(D);
    for (const i of as) for (const j of bs) {
      const start = ((i * B + j) * C + c) * D;
      for (let d = 0; d < D; d++) row[d] += packed.values[start + d];
    }
    rows.push(Array.from(row, (x) => x * scale));
  }
  return rows;
}

// Attention as a multiple of an even spread's, which is 1 everywhere; nothing where it cannot look.
function timesUniform(rows, readable) {
  const count = readable.filter(Boolean).length;
  return rows.map((row) => row.map((weight, k) => (readable[k] ? weight * count : null)));
}

function render({ model, el: root }) {
  const state = { cursor: null, playing: null, cross: null, self: null };
  root.classList.add("dmlf-explorer");

  // Controls ------------------------------------------------------------------------------------------------
  const uid = Math.random().toString(36).slice(2, 8);
  const field = (label, control) => {
    control.id ||= `dmlf-${uid}-${label.replace(/\W/g, "")}`;
    return el("span", { class: "dmlf-field" }, el("label", { for: control.id }, label), control);
  };
  const select = (name, change) => el("select", { "data-name": name, onchange: (e) => change(e.target.value) });
  const put = (name, value) => { model.set(name, value); model.save_changes(); };

  const search = el("input", { type: "search", "data-name": "search", placeholder: "words or id",
    oninput: () => list() });
  const order = select("order", () => list());
  for (const [value, label] of [["index", "as in the split"], ["error", "largest error"],
    ["disagreement", "heads disagree most"], ["label", "label"], ["prediction", "prediction"]])
    order.append(el("option", { value }, label));
  const listing = el("select", { size: 6, "data-name": "utterance", class: "dmlf-list", "aria-label": "Utterance",
    onchange: (e) => put("index", Number(e.target.value)) });

  const view = select("view", (value) => { put("view", value); draw(); });
  for (const [value, { name }] of Object.entries(VIEWS)) view.append(el("option", { value }, name));
  const pickers = {};
  for (const [name, label] of [["layer", "MM Block"], ["head", "Head"], ["token", "Token"], ["lm_layer", "LM layer"],
    ["lm_head", "LM head"]]) {
    const control = select(name, (value) => { put(name, Number(value)); draw(); });
    pickers[name] = field(label, control);
    pickers[name].control = control;
  }
  const effectsOf = select("effects_of", (value) => { put("effects_of", value); draw(); });
  for (const value of ["modalities", "words", "time", "tokens", "blocks"]) effectsOf.append(el("option", { value }, value));
  pickers.effects_of = field("Ablated", effectsOf);
  pickers.effects_of.control = effectsOf;

  let wait = null;
  const words = el("textarea", { rows: 2, "data-name": "text", spellcheck: "false", oninput: (e) => {
    clearTimeout(wait);
    const value = e.target.value;
    wait = setTimeout(() => put("text", value), 350);
  } });
  const switches = {};
  const modalities = el("span", { class: "dmlf-switches", role: "group", "aria-label": "Modalities" });
  for (const { name, label } of model.get("modalities")) {
    const box = el("input", { type: "checkbox", "data-name": `use_${name}`, onchange: () => {
      put("without", Object.keys(switches).filter((key) => !switches[key].checked));
    } });
    box.checked = true;
    switches[name] = box;
    modalities.append(el("label", {}, box, ` ${label}`));
  }
  const reset = el("button", { type: "button", "data-name": "reset", onclick: () => put("index_again", Date.now() % 1e9) }, "As recorded");
  const answer = el("div", { class: "dmlf-answer", role: "status", "aria-live": "polite" });
  const note = el("p", { class: "dmlf-note" });
  const media = el("div", { class: "dmlf-media" });
  const play = el("button", { type: "button", "data-name": "play", onclick: () => toggle() }, "▶ Play");
  const chart = el("div", { class: "dmlf-chart" });
  const needle = el("div", { class: "dmlf-cursor", hidden: true });
  const stage = el("div", { class: "dmlf-stage" }, chart, needle);

  root.append(
    el("div", { class: "dmlf-bar" }, field("Search", search), field("Sort by", order)),
    listing,
    el("div", { class: "dmlf-words" }, field("Words", words), modalities, reset),
    answer,
    el("div", { class: "dmlf-bar" }, field("View", view), ...Object.values(pickers), play),
    note,
    el("div", { class: "dmlf-body" }, media, stage),
  );

  // The list of utterances ------------------------------------------------------------------------------------
  function list() {
    const wanted = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    let rows = model.get("listing").filter((row) =>
      wanted.every((word) => row.text.toLowerCase().includes(word) || row.id.toLowerCase().includes(word)));
    const key = order.value;
    const size = { error: (r) => -Math.abs(r.error ?? 0), disagreement: (r) => -r.disagreement,
      index: (r) => r.index, label: (r) => r.label ?? 9, prediction: (r) => r.prediction }[key];
    rows = [...rows].sort((a, b) => size(a) - size(b) || a.index - b.index);
    const shown = rows.slice(0, 300);
    listing.replaceChildren(...shown.map((row) => el("option", { value: row.index },
      `${signed(row.prediction)} (label ${signed(row.label)})  ${row.text}`)));
    if (rows.length > shown.length) listing.append(el("option", { disabled: true }, `… and ${rows.length - shown.length} more: search`));
    if (!rows.length) listing.append(el("option", { disabled: true }, "nothing found"));
    listing.value = String(model.get("index"));
  }

  // What is on ---------------------------------------------------------------------------------------------------
  function fill() {
    const data = model.get("payload");
    if (!data || !data.shape) return;
    state.cross = unpack(model.get("cross"), data.cross_top);
    state.self = unpack(model.get("self_attention"), data.self_top);
    const [M, H, F] = data.shape, [N, LH] = data.self_shape;
    const fillOne = (name, entries) => {
      const { control } = pickers[name];
      const value = String(model.get(name));
      control.replaceChildren(...entries.map(([v, label]) => el("option", { value: v }, label)));
      control.value = entries.some(([v]) => String(v) === value) ? value : String(entries[0][0]);
    };
    const upTo = (n) => [...Array(n).keys()].map((i) => [i, String(i)]);
    fillOne("layer", [[-1, "mean of all"], ...data.layers.map((layer, i) => [i, `after layer ${layer}`])]);
    fillOne("head", [[-1, "mean of all"], ...upTo(H)]);
    fillOne("token", upTo(F));
    fillOne("lm_layer", [[-1, "mean / last"], ...upTo(N)]);
    fillOne("lm_head", [[-1, "mean of all"], ...upTo(LH)]);
    if (document.activeElement !== words) words.value = data.text;
    for (const name of Object.keys(switches)) switches[name].checked = !data.without.includes(name);
    for (const box of [words, ...Object.values(switches), reset]) box.disabled = false;
    if (data.fixed_text) words.disabled = true;
    say();
    load();
    draw();
  }

  function say() {
    const data = model.get("payload"), busy = model.get("busy"), trouble = model.get("trouble");
    answer.replaceChildren();
    if (trouble) { answer.append(el("span", { class: "dmlf-trouble" }, trouble)); return; }
    if (!data || !data.heads) return;
    const moved = data.sentiment - data.recorded;
    answer.append(
      el("strong", { "data-name": "sentiment" }, signed(data.sentiment)),
      ` ${data.label === null ? "" : `(label ${signed(data.label)}) `}`,
      Math.abs(moved) > 0.005 ? el("span", { class: "dmlf-moved" }, `${signed(moved)} from as recorded. `) : "",
      el("span", {}, `Text head ${signed(data.heads.text)}, fusion tokens ${signed(data.heads.fusion)}, voice and face ${signed(data.heads.av)}. `),
      data.note ? el("span", { class: "dmlf-moved" }, data.note) : "",
      busy ? " …" : "",
    );
    const bar = el("span", { class: "dmlf-meter", "aria-hidden": "true" });
    const mark = (value, cls) => {
      const dot = el("i", { class: cls });
      dot.style.left = `${50 + 50 * Math.max(-1, Math.min(1, value / data.scale))}%`;
      bar.append(dot);
    };
    if (data.label !== null) mark(data.label, "label");
    mark(data.recorded, "recorded");
    mark(data.sentiment, "now");
    answer.append(bar);
  }

  // The clip ---------------------------------------------------------------------------------------------------------
  let shownClip = null;
  function load() {
    const data = model.get("payload");
    const key = data.clip ? `${data.index}:${data.clip.type}` : null;
    if (key === shownClip) return;
    shownClip = key;
    stop();
    media.replaceChildren();
    if (state.url) URL.revokeObjectURL(state.url);
    if (!key) return;
    const bytes = model.get("clip");
    state.url = URL.createObjectURL(new Blob([bytes], { type: data.clip.type }));
    const player = el(data.clip.type.startsWith("audio") ? "audio" : "video", { controls: true, src: state.url,
      "data-name": "clip", preload: "auto" });
    player.addEventListener("timeupdate", () => moveTo(player.currentTime));
    player.addEventListener("play", () => follow(player));
    player.addEventListener("seeked", () => moveTo(player.currentTime));
    media.append(player);
  }
  function follow(player) {
    const step = () => {
      moveTo(player.currentTime);
      if (!player.paused && !player.ended) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }
  function toggle() {
    if (state.playing) { stop(); return; }
    const data = model.get("payload");
    const from = state.cursor === null || state.cursor >= data.seconds ? 0 : state.cursor;
    const started = performance.now() - from * 1000;
    play.textContent = "❚❚ Pause";
    const step = () => {
      const now = (performance.now() - started) / 1000;
      moveTo(now);
      if (now >= data.seconds) { stop(); return; }
      state.playing = requestAnimationFrame(step);
    };
    state.playing = requestAnimationFrame(step);
  }
  function stop() {
    if (state.playing) cancelAnimationFrame(state.playing);
    state.playing = null;
    play.textContent = "▶ Play";
  }
  function moveTo(seconds) {
    state.cursor = seconds;
    const full = chart._fullLayout, axis = full && full.xaxis;
    const data = model.get("payload");
    if (!axis || !data.timed || !OVER_TIME.includes(model.get("view"))) { needle.hidden = true; return; }
    const x = axis._offset + axis.l2p(seconds);
    needle.hidden = x < axis._offset || x > axis._offset + axis._length;
    needle.style.transform = `translateX(${x}px)`;
    needle.style.top = `${full._size.t}px`;
    needle.style.height = `${full._size.h}px`;
  }

  // Pictures -----------------------------------------------------------------------------------------------------------
  const axis = (title, more = {}) => ({ title: { text: title, standoff: 6 }, gridcolor: GRID, zerolinecolor: LINE,
    linecolor: LINE, tickcolor: LINE, automargin: true, tickmode: "auto", ...more });
  const base = (title, more = {}) => ({ paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: GREY, size: 12 }, margin: { l: 76, r: 70, t: 40, b: 48 }, height: 420,
    title: { text: title, x: 0.01, xanchor: "left", font: { size: 14 } },
    hoverlabel: { bgcolor: "#2b3038", font: { color: "#f3f4f6" } }, showlegend: false, ...more });
  const chosen = (name) => { const value = Number(pickers[name].control.value); return value < 0 ? null : value; };

  function wordAt(data, t) {
    if (!data.timed) return "–";
    const word = data.words.find((w) => w.start !== null && w.start <= t && t < w.end);
    return word ? word.word : "–";
  }
  function overTime(data, weights, names, title, yTitle) {
    const extra = weights.map(() => data.steps.map((t, k) => [wordAt(data, t), k]));
    const traces = [{ type: "heatmap", z: timesUniform(weights, data.readable), x: data.steps, y: names, customdata: extra,
      colorscale: TIMES_UNIFORM.colorscale, zmin: TIMES_UNIFORM.cmin, zmax: TIMES_UNIFORM.cmax, hoverongaps: false,
      colorbar: { ...TIMES_UNIFORM.colorbar, thickness: 10, len: 0.5, y: 1, yanchor: "top" },
      hovertemplate: "%{y}, %{x:.2f}" + (data.timed ? " s" : "") + " (step %{customdata[1]})<br>word: %{customdata[0]}<br>attention %{z:.2f} times even<extra></extra>" }];
    const range = [data.steps[0] - data.half, data.steps[data.steps.length - 1] + data.half];
    // A row of curves for each modality beside the text, the first of them (voice) with a second axis
    const rows = Object.entries(data.tracks).map(([name, tracks], i, all) => {
      const step = 0.48 / all.length, top = 0.44 - i * step;
      return { tracks, label: model.get("modalities").find((m) => m.name === name).label, domain: [top - step + 0.04, top],
        target: i < 2 ? i + 3 : i + 4 };
    });
    const second = rows[0].tracks[1];
    const layout = base(title, { height: 590 + 100 * (rows.length - 2), showlegend: true, legend: { orientation: "h", y: -0.13, x: 0, font: { size: 11 } },
      xaxis: axis(data.timed ? "time (s)" : "AV step", { range, anchor: `y${rows[rows.length - 1].target}` }),
      yaxis: axis(yTitle, { autorange: "reversed", domain: [0.56, 1], type: "category" }),
      yaxis2: axis("words", { domain: [0.46, 0.54], range: [0, 1], showticklabels: false, showgrid: false, ticks: "" }),
      yaxis5: axis(second ? second.name : "", { overlaying: "y3", side: "right", showgrid: false, nticks: 4 }),
      shapes: [] });
    rows.forEach(({ tracks: [first], label, domain, target }, i) => {
      const title = first ? (i ? label : first.name) : `no ${label}`; // units: see the hover text
      layout[`yaxis${target}`] = axis(title, { domain, nticks: 4 });
    });
    const spoken = data.words.filter((w) => w.start !== null);
    for (const word of spoken) layout.shapes.push({ type: "rect", x0: word.start, x1: word.end, y0: 0, y1: 1, yref: "y2",
      fillcolor: COLOUR.text, opacity: 0.22, line: { width: 0 } });
    traces.push({ type: "scatter", mode: "text", x: spoken.map((w) => (w.start + w.end) / 2), y: spoken.map((_, i) => (spoken.length > 16 ? 0.7 - 0.4 * (i % 2) : 0.5)),
      text: spoken.map((w) => w.word), yaxis: "y2", textfont: { size: 11 }, showlegend: false, hovertemplate: "%{text}<extra></extra>" });
    const curve = (track, target) => traces.push({ type: "scatter", mode: "lines", x: track.t, y: track.v, yaxis: target,
      name: track.name, line: { width: 1.5, color: TRACKS[track.name] || GREY },
      hovertemplate: `%{x:.2f}: %{y:.2f} ${track.unit}<br>frame %{pointNumber}<extra>${track.name}</extra>` });
    for (const { tracks, target } of rows) {
      if (target === 3) tracks.slice(0, 2).forEach((track, i) => curve(track, i ? "y5" : "y3"));
      else tracks.forEach((track) => curve(track, `y${target}`));
      if (!tracks.length) // an axis needs a trace to be drawn
        traces.push({ type: "scatter", x: [null], y: [null], yaxis: `y${target}`, showlegend: false, hoverinfo: "skip" });
    }
    return { traces, layout };
  }

  const pictures = {
    timeline(data) {
      const a = chosen("layer"), b = chosen("head");
      const z = plane(state.cross, data.shape, a, b);
      const where = `${a === null ? "mean of MM Blocks" : `MM Block after layer ${data.layers[a]}`}, ${b === null ? "mean of heads" : `head ${b}`}`;
      return overTime(data, z, z.map((_, i) => `token ${i}`), `Where fusion tokens look: ${where}`, "fusion token");
    },
    layers(data) {
      const token = chosen("token") ?? 0, b = chosen("head");
      const z = data.layers.map((_, a) => plane(state.cross, data.shape, a, b)[token]);
      return overTime(data, z, data.layers.map((layer) => `layer ${layer}`),
        `Where token ${token} looks, by depth: ${b === null ? "mean of heads" : `head ${b}`}`, "MM Block");
    },
    heads(data) {
      const token = chosen("token") ?? 0, a = chosen("layer");
      const z = [...Array(data.shape[1]).keys()].map((b) => plane(state.cross, data.shape, a, b)[token]);
      return overTime(data, z, z.map((_, i) => `head ${i}`),
        `Where token ${token} looks, by head: ${a === null ? "mean of MM Blocks" : `MM Block after layer ${data.layers[a]}`}`, "head");
    },
    words(data) {
      const a = chosen("lm_layer"), b = chosen("lm_head");
      const z = plane(state.self, data.self_shape, a, b);
      return { traces: [{ type: "heatmap", z, x: data.words.map((w) => w.label), y: z.map((_, i) => `token ${i}`), colorscale: SEQUENTIAL,
        xgap: 1, ygap: 1, colorbar: { thickness: 10, title: { text: "attention" } }, hovertemplate: "%{y} to “%{x}”: %{z:.4f}<extra></extra>" }],
        layout: base(`What fusion tokens read of the words: ${a === null ? "mean of LM layers" : `LM layer ${a}`}, ${b === null ? "mean of heads" : `head ${b}`}`,
          { xaxis: axis("word", { type: "category" }), yaxis: axis("fusion token", { autorange: "reversed", type: "category" }) }) };
    },
    sentiment(data) {
      const token = chosen("token") ?? 0, d = data.depth;
      const x = [...d.task.keys()];
      const line = (name, y, color, width, dash = "solid") => ({ type: "scatter", mode: width > 2 ? "lines+markers" : "lines", x, y, name,
        line: { color, width, dash }, showlegend: width > 1, hovertemplate: `depth %{x}: %{y:+.2f}<extra>${name}</extra>` });
      const column = (i) => d.fusion.map((row) => row[i]);
      const traces = d.fusion[0].map((_, i) => line(`token ${i}`, column(i), "rgba(162,28,175,0.35)", 1));
      traces.push(line(`token ${token}`, column(token), COLOUR.fusion, 3), line("text head", d.text, COLOUR.text, 3),
        line("task head", d.task, COLOUR.task, 3));
      const shapes = data.layers.map((layer) => ({ type: "rect", xref: "x", yref: "paper", x0: layer + 0.62, x1: layer + 1.38, y0: 0, y1: 1,
        fillcolor: COLOUR.av, opacity: 0.12, line: { width: 0 } }));
      if (data.label !== null) shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: data.label, y1: data.label, line: { color: GREY, dash: "dash" } });
      return { traces, layout: base("How the sentiment forms through the layers (dashed: label)", { shapes, showlegend: true, legend: { orientation: "h", y: -0.22 },
        xaxis: axis("depth (LM layers passed; shaded: an MM Block follows)"), yaxis: axis("sentiment (label's units)") }) };
    },
    update(data) {
      return { traces: [{ type: "heatmap", z: data.update, x: data.update[0].map((_, i) => String(i)), y: data.layers.map(String), colorscale: SEQUENTIAL, xgap: 1, ygap: 1,
        colorbar: { thickness: 10, title: { text: "share" } }, hovertemplate: "layer %{y}, token %{x}: %{z:.3f} of the state<extra></extra>" }],
        layout: base("What cross-attention adds, relative to the token's state", { xaxis: axis("fusion token", { type: "category", showgrid: false }),
          yaxis: axis("MM Block (after LM layer)", { type: "category", showgrid: false }) }) };
    },
    similarity(data) {
      const a = chosen("lm_layer"), depth = a === null ? data.similarity.length - 1 : a + 1;
      return { traces: [{ type: "heatmap", z: data.similarity[depth], zmin: -1, zmax: 1, colorscale: DIVERGING, xgap: 1, ygap: 1,
        colorbar: { thickness: 10, title: { text: "cosine" } }, hovertemplate: "tokens %{x} and %{y}: %{z:.2f}<extra></extra>" }],
        layout: base(`Similarity of fusion tokens after LM layer ${depth - 1}`, { height: 480,
          xaxis: axis("fusion token", { constrain: "domain", showgrid: false, zeroline: false }),
          yaxis: axis("fusion token", { autorange: "reversed", scaleanchor: "x", constrain: "domain", showgrid: false, zeroline: false }) }) };
    },
    effects(data) {
      const all = model.get("effects") || {}, found = all[pickers.effects_of.control.value];
      if (!found || found.of !== pickers.effects_of.control.value) return { traces: [], layout: base("Measuring …", { xaxis: axis(""), yaxis: axis("") }) };
      const traces = [{ type: "bar", x: found.names, y: found.effect, marker: { color: found.effect.map((v) => (v >= 0 ? UP : DOWN)), opacity: 0.85 },
        hovertemplate: "%{x}<br>effect %{y:+.3f}<extra></extra>" }];
      const layout = base(`Effect of each of the ${found.of} (ablated: ${found.replacement})`, { xaxis: axis(found.of, { type: "category" }), yaxis: axis("effect (label's units)") });
      if (found.attention) {
        traces.push({ type: "scatter", mode: "markers", x: found.names, y: found.attention, yaxis: "y2", marker: { color: COLOUR.av, size: 9 },
          hovertemplate: "%{x}<br>attention %{y:.3f}<extra></extra>" });
        layout.yaxis2 = axis("attention (dots)", { overlaying: "y", side: "right", showgrid: false, rangemode: "tozero" });
        layout.annotations = [{ xref: "paper", yref: "paper", x: 1, y: 1.06, xanchor: "right", showarrow: false,
          text: found.rank === null ? "" : `rank correlation of attention with effect ${signed(found.rank)}` }];
      }
      return { traces, layout };
    },
  };

  function draw() {
    const data = model.get("payload");
    if (!data || !data.shape) return;
    const started = performance.now();
    view.value = model.get("view");
    for (const [name, box] of Object.entries(pickers)) {
      box.hidden = !VIEWS[view.value].uses.includes(name);
      if (name === "effects_of") box.control.value = model.get("effects_of");
    }
    note.textContent = NOTES[view.value];
    play.hidden = Boolean(data.clip) || !data.timed || !OVER_TIME.includes(view.value);
    const picture = pictures[view.value](data);
    Plotly.react(chart, picture.traces, picture.layout, { responsive: true, displaylogo: false }).then(() => {
      root.dataset.drawMs = (performance.now() - started).toFixed(1);
      root.dataset.drawn = String(Number(root.dataset.drawn || 0) + 1);
      if (state.cursor !== null) moveTo(state.cursor); else needle.hidden = true;
    });
  }

  const heard = { "change:listing": list, "change:payload": () => { fill(); listing.value = String(model.get("index")); },
    "change:busy": say, "change:trouble": say, "change:effects": draw,
    "change:view": draw };
  for (const name of ["layer", "head", "token", "lm_layer", "lm_head"])
    heard[`change:${name}`] = () => { pickers[name].control.value = String(model.get(name)); draw(); };
  for (const [event, call] of Object.entries(heard)) model.on(event, call);
  // A notebook puts the widget on the page after it is made, and its cells change width.
  const sized = new ResizeObserver(() => {
    const width = stage.offsetWidth;
    if (!chart.data || !width || width === state.width) return;
    state.width = width;
    Plotly.Plots.resize(chart).then(() => { if (state.cursor !== null) moveTo(state.cursor); });
  });
  sized.observe(stage);
  list();
  fill();
  return () => {
    stop();
    sized.disconnect();
    for (const [event, call] of Object.entries(heard)) model.off(event, call);
    if (state.url) URL.revokeObjectURL(state.url);
    Plotly.purge(chart);
  };
}
