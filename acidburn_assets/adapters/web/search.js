// The search page: a question, its answer, and where it was looked for.
//
// Everything that comes from the service is set by textContent, nothing is parsed as markup, and
// nothing is asked of anywhere but the service itself: the page's policy forbids both.
"use strict";

const N_TOPICS = 24; // clusters that are offered at the start: three lines
const N_PASSAGES = 10;
const N_SEARCHED = 12; // clusters that are named at once; the others are folded
const N_NEAR = 6; // clusters that are offered where nothing was found
const FOLD_CHARS = 700, FOLD_LINES = 10; // of a passage; chosen: what is seen of it at once
const DEEPER = 4; // times as much is searched when somebody asks to look further
const TOKEN = "acidburn-token"; // in sessionStorage: ends with the tab
const LETTERS = "acidburn-letters"; // in localStorage: whether single keys do something
const ID_LETTERS = 12; // of a chunk's id, that the map knows its points by

const byId = (id) => document.getElementById(id);
const number = (n) => n.toLocaleString("en");
const counted = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const sureness = (probability) => `${Math.round(100 * probability)} % sure`;
const width = (share) => `${Math.round(1000 * Math.max(0, Math.min(1, share))) / 10}%`;
const dollars = (usd) => `$${usd.toFixed(usd && usd < 0.01 ? 4 : 2)}`;
const seconds = (s) => s < 1 ? `${Math.round(1000 * s)} ms` : `${s.toFixed(1)} s`;

function element(name, { text = "", className = "", ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((one) => one !== null));
  return made;
}

function button(attributes, onClick, ...children) {
  const made = element("button", { type: "button", ...attributes }, ...children);
  made.addEventListener("click", onClick);
  return made;
}

function facts(pairs) {
  return element("dl", {}, ...pairs.filter(([, value]) => value !== "" && value !== null)
    .flatMap(([name, value, className = "foreign"]) =>
      [element("dt", { text: name }), element("dd", { text: String(value), className })]));
}

function folded(title, ...children) {
  return element("details", {}, element("summary", { text: title }), ...children);
}

function table(caption, columns, rows) { // a column: [name, whether it holds numbers]
  const cell = (name, text, isNumber) => element(name, { text, className: isNumber ? "n" : "foreign" });
  return element("div", { className: "wide" }, element("table", {},
    element("caption", { text: caption }),
    element("thead", {}, element("tr", {}, ...columns.map(([text, isNumber]) => {
      const head = cell("th", text, isNumber);
      head.scope = "col";
      return head;
    }))),
    element("tbody", {}, ...rows.map((row) =>
      element("tr", {}, ...row.map((text, i) => cell("td", text, columns[i][1])))))));
}

// ---- the service ---------------------------------------------------------------------------------

class Problem extends Error {
  constructor(status, error, mend = "") {
    super(error);
    this.status = status;
    this.mend = mend;
  }
}

class Service {
  get token() { return sessionStorage.getItem(TOKEN) ?? ""; }

  set token(token) { sessionStorage.setItem(TOKEN, token); }

  async request(path, { pool = null, body = null, signal = null } = {}) {
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    if (body) headers["Content-Type"] = "application/json";
    const address = pool === null ? path : `${path}?${new URLSearchParams({ pool })}`;
    let response;
    try {
      response = await fetch(address, {
        method: body ? "POST" : "GET", headers, signal, cache: "no-store",
        ...(body ? { body: JSON.stringify(body) } : {}),
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(0, "The service does not answer.", "Is it still running? Then ask again.");
    }
    const told = await response.json().catch(() => ({}));
    if (response.ok) return told;
    throw new Problem(response.status, told.error ?? `The service failed (${response.status}).`, told.mend);
  }
}

// ---- the map -------------------------------------------------------------------------------------

function bytesOf(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i += 1) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

class PoolMap {
  constructor(outline) {
    const { points, clusters, hues } = outline;
    const little = (Type, text) => new Type(bytesOf(text).buffer); // little-endian, as browsers are
    this.hues = hues;
    this.clusters = clusters;
    this.byId = new Map(clusters.map((one) => [one.cluster_id, one]));
    this.n = points.n;
    this.x = Float32Array.from(little(Uint16Array, points.x), (value) => value / 65535);
    this.y = Float32Array.from(little(Uint16Array, points.y), (value) => 1 - value / 65535);
    this.cluster = little(Uint32Array, points.cluster);
    this.isNoise = bytesOf(points.is_noise);
    this.chunks = bytesOf(points.chunk);
    this.lit = new Set(); // cluster ids; empty: all
    this.chosen = null; // a cluster id
  }

  hue(clusterId) {
    const hue = this.byId.get(clusterId)?.hue;
    return hue === null || hue === undefined ? "var(--noise)" : this.hues[hue];
  }

  find(chunkIds) { // positions of those chunks that are on the map
    const wanted = new Map(chunkIds.map((id) => [id.slice(0, ID_LETTERS), id]));
    const found = new Map();
    const size = ID_LETTERS / 2;
    for (let i = 0; i < this.n && found.size < wanted.size; i += 1) {
      let id = "";
      for (let b = 0; b < size; b += 1) id += this.chunks[i * size + b].toString(16).padStart(2, "0");
      if (wanted.has(id)) found.set(wanted.get(id), i);
    }
    return found;
  }

  draw(canvas) {
    const side = canvas.clientWidth, ratio = devicePixelRatio || 1;
    if (!side) return;
    canvas.width = canvas.height = Math.round(side * ratio);
    const context = canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    const isLit = (id) => this.chosen !== null ? id === this.chosen : !this.lit.size || this.lit.has(id);
    const size = Math.max(1.6, Math.min(3.4, 150 / Math.sqrt(this.n || 1))) * ratio;
    const [pad, wide] = [0.04 * canvas.width, 0.92 * canvas.width];
    for (const isFront of [false, true]) {
      for (let i = 0; i < this.n; i += 1) {
        const one = this.clusters[this.cluster[i]];
        const lit = isLit(one.cluster_id);
        if (lit !== isFront) continue;
        context.globalAlpha = lit ? 0.85 : 1;
        context.fillStyle = !lit ? colour("--dim") : this.isNoise[i] || one.hue === null
          ? colour("--noise") : this.hues[one.hue];
        if (isDark && lit) context.globalAlpha = 1;
        const s = lit && this.lit.size ? size * 1.35 : size;
        context.fillRect(pad + this.x[i] * wide - s / 2, pad + this.y[i] * wide - s / 2, s, s);
      }
    }
    const place = this.byId.get(this.chosen)?.place;
    if (!place) return;
    context.beginPath();
    context.arc(pad + place[0] * wide, pad + (1 - place[1]) * wide, 0.045 * canvas.width, 0, 2 * Math.PI);
    context.strokeStyle = colour("--ink");
    context.lineWidth = 1.5 * ratio;
    context.globalAlpha = 1;
    context.stroke();
  }

  place(i) { return { left: `${4 + 92 * this.x[i]}%`, top: `${4 + 92 * this.y[i]}%` }; }
}

// ---- parts of an answer --------------------------------------------------------------------------

// Spans count characters as Python does; JavaScript counts some twice.
function marked(text, spans) {
  const letters = [...text], parts = [];
  let at = 0;
  for (const [start, end] of spans) {
    if (start < at || end > letters.length) continue; // overlaps: the first one is marked
    parts.push(document.createTextNode(letters.slice(at, start).join("")));
    parts.push(element("mark", { text: letters.slice(start, end).join("") }));
    at = end;
  }
  parts.push(document.createTextNode(letters.slice(at).join("")));
  return parts;
}

function cited(text, ranks, onCite) { // [1] or [1, 2] become links where there is such a passage
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(/\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]/g)) {
    const numbers = found[1].split(",").map(Number);
    if (!numbers.every((one) => ranks.has(one))) continue;
    parts.push(document.createTextNode(text.slice(at, found.index)));
    for (const rank of numbers) {
      const link = element("a", {
        className: "cite", href: `#passage-${rank}`, text: String(rank), "aria-label": `passage ${rank}`,
      });
      link.addEventListener("click", (event) => {
        event.preventDefault(); // the address holds the question
        onCite(rank);
      });
      parts.push(link);
    }
    at = found.index + found[0].length;
  }
  parts.push(document.createTextNode(text.slice(at)));
  return parts;
}

const nameOf = (place) => place.title || place.doc_id;
const placed = (place) => `${place.doc_id}, characters ${number(place.char_start)}–${number(place.char_end)}`;

function verdictOf({ gate, trail, passages, text, pool }) {
  const looked = `${counted(trail.n_rows_scanned, "passage")} of ${number(trail.n_rows_total)} `
    + `(${percent(trail.share_scanned)}) in ${counted(trail.clusters_searched.length, "cluster")}`;
  const sure = gate.probability === null ? "" : sureness(gate.probability);
  const bar = gate.threshold === null ? "" : `, ${Math.round(100 * gate.threshold)} % are asked for`;
  if (gate.verdict === "accepted") {
    return { title: text ? "Answered from the passages below" : "The answer is among these passages",
      said: [sure && `${sure}${bar}. `, `Looked at ${looked}.`].join("") };
  }
  if (gate.probability === null) {
    return { title: "The nearest passages",
      said: `Whether they answer it cannot be told: ${gate.provenance}. Looked at ${looked}.` };
  }
  if (gate.verdict === "ambiguous") {
    return { title: "This may not answer it",
      said: "The passages are near the question, and it is not sure that they answer it "
        + `(${sure}${bar}). Read them with care. Looked at ${looked}.` };
  }
  return { title: passages.length ? "Nothing found that answers this" : "Nothing found",
    said: `Looked at ${looked} of the pool ${pool}, and no passage came near enough (${sure}${bar}).` };
}

const CHECKED = {
  corroborated: "Corroborated", contradicted: "Contradicted", unverified: "Not verified",
};

// ---- the page ------------------------------------------------------------------------------------

class Page {
  constructor() {
    this.service = new Service();
    this.facts = null;
    this.map = null;
    this.mapOf = ""; // the pool whose map that is
    this.shown = null; // an answer
    this.asking = null; // an AbortController
    this.at = -1; // the passage that was gone to, by j and k
    this.areLettersKeys = localStorage.getItem(LETTERS) !== "off";
    byId("letters").checked = this.areLettersKeys;
    this.listen();
  }

  get pool() { return byId("pool").value || null; }

  say(text) { byId("said").textContent = text; }

  complain(problem) {
    byId("trouble").replaceChildren(element("strong", { text: problem.message }),
      element("p", { text: problem.mend ?? "" }), element("p", { className: "soft foreign",
        text: this.shown === null ? "" : `Below is still the answer to: ${this.shown.question}` }));
    byId("trouble").hidden = false;
  }

  // -- beginning

  async start() {
    try {
      this.facts = await this.service.request("/pools");
    } catch (error) {
      if (error.status === 401) return this.openDoor(error);
      this.complain(error);
      return document.documentElement.dataset.state = "ready";
    }
    const { pools } = this.facts;
    byId("pool").replaceChildren(...pools.map(({ name, tier }) =>
      element("option", { value: name, text: tier === "verification" && name !== tier ? `${name} (verification)` : name })));
    byId("pools").hidden = pools.length < 2;
    byId("question").maxLength = this.facts.question_chars;
    await this.readHash();
    return document.documentElement.dataset.state = "ready";
  }

  openDoor(error) {
    byId("door-said").textContent = this.service.token
      ? "That token is wrong. Try again." : "Whoever runs it set it as ACIDBURN_SERVE_TOKEN.";
    byId("door-said").classList.toggle("wrong", Boolean(this.service.token));
    if (error.status === 401 && !byId("door").open) byId("door").showModal();
    document.documentElement.dataset.state = "ready";
  }

  async readHash() { // a shared question is asked, unless that costs money: then it waits for Enter
    const given = new URLSearchParams(location.hash.slice(1));
    const pool = given.get("pool"), question = given.get("q") ?? "";
    if (pool !== null && this.facts.pools.some(({ name }) => name === pool)) byId("pool").value = pool;
    else if (pool !== null) {
      this.complain(new Problem(404, `There is no pool “${pool}” here.`,
        `There are: ${this.facts.pools.map(({ name }) => name).join(", ")}.`));
    }
    byId("question").value = question;
    this.fit();
    await this.showPool();
    if (question === "") byId("question").focus();
    else if (this.facts.writer === null) await this.ask();
    else {
      byId("question").focus();
      this.say("Press Enter to ask");
    }
  }

  async showPool() {
    const facts = this.facts.pools.find(({ name }) => name === this.pool);
    byId("about").textContent = facts.is_ready
      ? `${counted(facts.n_chunks, "passage")} in ${counted(facts.n_clusters, "cluster")}, from `
        + facts.datasets.map(({ dataset }) => dataset).join(", ")
      : "";
    if (!facts.is_ready) this.complain(new Problem(503, facts.error ?? "The pool is not open.", facts.mend));
    this.mapOf = this.pool;
    this.map = null;
    try {
      const outline = facts.is_ready ? await this.service.request("/clusters", { pool: this.pool }) : null;
      if (this.mapOf !== facts.name) return; // another pool was chosen meanwhile
      this.map = outline && new PoolMap(outline);
    } catch (error) {
      if (error.status === 401) this.openDoor(error);
      else this.complain(error);
    }
    this.showTopics();
    this.showMap();
  }

  showTopics() {
    const largest = [...this.map?.clusters ?? []].sort((a, b) => b.n_chunks - a.n_chunks).slice(0, N_TOPICS);
    byId("topics").replaceChildren(...largest.map((one) => element("li", {}, this.topic(one.cluster_id,
      one.title, () => this.askFor(one.title), number(one.n_chunks)))));
    byId("start").hidden = !largest.length || this.shown !== null;
  }

  topic(clusterId, title, onClick, note = "", attributes = {}) {
    const dot = element("span", { className: "dot" });
    if (this.map) dot.style.background = this.map.hue(clusterId);
    const inside = element("span", { className: "foreign", text: title });
    return button({ className: "chip", ...attributes }, onClick, dot, inside,
      note ? element("small", { text: note }) : null);
  }

  // -- asking

  askFor(question) {
    byId("question").value = question;
    this.fit();
    return this.ask();
  }

  async ask(nScanned = null) {
    const question = byId("question").value.trim();
    if (!question || !this.facts) return;
    this.asking?.abort();
    const asking = this.asking = new AbortController();
    const pool = this.pool;
    history.replaceState(null, "", `#${new URLSearchParams({ q: question, pool })}`);
    document.title = `${question.slice(0, 60)} – Acidburn`;
    byId("trouble").hidden = true;
    this.setBusy(true);
    try {
      const body = { question, n_passages: N_PASSAGES, ...(nScanned ? { n_scanned: nScanned } : {}) };
      const answer = await this.service.request("/ask", { pool, body, signal: asking.signal });
      if (asking === this.asking) this.show(answer);
    } catch (error) {
      if (asking !== this.asking) return;
      if (error.name === "AbortError") this.say("Stopped");
      else if (error.status === 401) this.openDoor(error);
      else this.complain(error);
    } finally {
      if (asking === this.asking) {
        this.asking = null;
        this.setBusy(false);
      }
    }
  }

  setBusy(isBusy) {
    byId("ask").hidden = isBusy;
    byId("stop").hidden = !isBusy;
    byId("waiting").hidden = !isBusy;
    byId("answer").hidden = isBusy || this.shown === null;
    byId("start").hidden = isBusy || this.shown !== null || !byId("topics").children.length;
    byId("results").setAttribute("aria-busy", isBusy);
    if (isBusy) this.say("Searching");
  }

  // -- an answer

  show(answer) {
    this.shown = answer;
    this.at = -1;
    const ranks = new Set(answer.passages.map(({ rank }) => rank));
    const { title, said } = verdictOf(answer);
    const verdict = element("section", { className: `verdict ${answer.gate.verdict}`, "aria-labelledby": "verdict" },
      element("div", {}, element("h2", { id: "verdict", text: title }), element("p", { text: said }),
        answer.gate.verdict === "not_found" ? this.whatToTry(answer) : null));
    const parts = [verdict];
    if (answer.text !== null) {
      parts.push(element("div", { className: "written foreign" },
        ...cited(answer.text, ranks, (rank) => this.goTo(rank))));
      parts.push(element("p", { className: "by soft",
        text: `written by ${answer.written_by ?? "a model"} from the passages, ${dollars(answer.trail.usd)}` }));
    }
    if (answer.verification.status !== "not_needed") parts.push(this.checked(answer.verification));
    if (answer.trail.n_shards_behind) {
      parts.push(element("p", { className: "checked", text:
        `${counted(answer.trail.n_shards_behind, "shard")} of the pool follow an earlier clustering; passages of theirs may be missed until the pool is materialized.` }));
    }
    if (answer.passages.length) parts.push(this.passages(answer));
    parts.push(this.trail(answer));
    byId("answer").replaceChildren(...parts);
    this.showMap();
    byId("answer").hidden = false;
    this.say(`${title}. ${counted(answer.passages.length, "passage")}.`);
    scrollTo({ top: 0 });
  }

  whatToTry({ trail, pool }) {
    const others = this.facts.pools.filter(({ name, is_ready }) => name !== pool && is_ready);
    const further = Math.min(DEEPER * Math.max(1, trail.n_rows_scanned), this.facts.n_scanned, trail.n_rows_total);
    const tries = [element("li", { text: "Say it in other words, as the corpus would." })];
    const near = trail.clusters_searched.slice(0, N_NEAR);
    if (near.length) {
      tries.push(element("li", { text: "Or start from what lies nearest:" }, element("div", { className: "chips" },
        ...near.map((one) => this.topic(one.cluster_id, one.title, () => this.askFor(one.title))))));
    }
    if (further > trail.n_rows_scanned) {
      tries.push(element("li", {}, button({ className: "chip",
        text: `Search further: ${counted(further, "passage")}` }, () => this.ask(further))));
    }
    for (const { name } of others) {
      tries.push(element("li", {}, button({ className: "chip", text: `Ask the pool ${name}` }, async () => {
        byId("pool").value = name;
        await this.showPool();
        await this.ask();
      })));
    }
    return element("div", {}, element("p", { text: "What you can try:" }), element("ul", {}, ...tries));
  }

  checked({ status, by, passages }) {
    return element("div", { className: `checked ${status}` },
      element("strong", { text: CHECKED[status] ?? status }),
      document.createTextNode(by ? ` by ${by}` : ": no pool for verification says so"),
      passages.length ? folded(`${counted(passages.length, "passage")} there`,
        element("ul", {}, ...passages.map((one) => element("li", {},
          element("span", { className: "name foreign", text: nameOf(one) }),
          element("div", { className: "text foreign" }, ...marked(one.text, one.matches)))))) : null);
  }

  passages(answer) {
    const isNotFound = answer.gate.verdict === "not_found";
    const list = element("ol", { className: "passages" }, ...answer.passages.map((one) => this.passage(one)));
    if (isNotFound) {
      return folded(`The nearest ${counted(answer.passages.length, "passage")} all the same`, list);
    }
    return element("section", { "aria-labelledby": "passages" },
      element("div", { className: "heading" }, element("h2", { id: "passages", text: "Passages" }),
        element("p", { className: "soft keyed", text: "j and k go from one to the next" })), list);
  }

  passage(one) {
    const id = `passage-${one.rank}`;
    const text = element("div", { className: "text foreign" }, ...marked(one.text, one.matches));
    const isLong = one.text.length > FOLD_CHARS || one.text.split("\n").length > FOLD_LINES;
    text.classList.toggle("folded", isLong);
    const more = isLong ? button({ className: "more", text: "Show all of it", "aria-expanded": "false" }, () => {
      const isFolded = text.classList.toggle("folded");
      more.textContent = isFolded ? "Show all of it" : "Show less";
      more.setAttribute("aria-expanded", !isFolded);
    }) : null;
    const bar = element("b");
    bar.style.width = width(one.score);
    const gauge = element("span", { className: "gauge",
      title: `cosine ${one.cosine.toFixed(3)}, words ${one.lexical.toFixed(2)}` },
    element("i", { "aria-hidden": "true" }, bar), element("span", { className: "unseen", text: "score" }),
    document.createTextNode(one.score.toFixed(2)));
    const support = one.is_support === null ? null : element("span", one.is_support
      ? { className: "support", text: "✓ supports the answer" }
      : { className: "no-support", text: "does not support it" });
    return element("li", {}, element("article", { className: "passage", id, tabindex: "-1", "aria-labelledby": `${id}-title` },
      element("span", { className: "rank", text: String(one.rank), "aria-hidden": "true" }),
      element("h3", { id: `${id}-title` }, element("span", { className: "unseen", text: `Passage ${one.rank}: ` }),
        element("span", { className: "foreign", text: nameOf(one) })),
      text, more,
      element("div", { className: "facts" }, gauge, support, this.topic(one.cluster_id, one.cluster_title,
        () => this.choose(one.cluster_id), "", { "data-cluster": one.cluster_id, "aria-pressed": "false" })),
      one.duplicates.length ? folded(`The same text in ${counted(one.duplicates.length, "other place")}`,
        element("ul", {}, ...one.duplicates.map((place) =>
          element("li", { className: "foreign", text: `${nameOf(place)}: ${placed(place)}, ${place.dataset}/${place.shard}` })))) : null,
      this.origin(one)));
  }

  origin(one) {
    const details = folded("Where it is from", facts([
      ["document", one.doc_id], ["characters", `${number(one.char_start)}–${number(one.char_end)}`],
      ["dataset", one.dataset], ["revision", one.revision, "hash"], ["shard", one.shard],
      ["cluster", `${one.cluster_id}: ${one.cluster_title}`], ["chunk", one.chunk_id, "hash"],
      ["vectors", one.embeddings_sha256, "hash"], ["content", one.source_sha256, "hash"],
      ["model", this.shown.model, "hash"], ["run", one.run_id, "hash"],
      ["cosine, words", `${one.cosine.toFixed(4)}, ${one.lexical.toFixed(4)}`],
    ]), element("p", { className: "soft" }, document.createTextNode("Its whole history: "),
      element("code", { text: `acidburn audit passage ${one.chunk_id}` })));
    details.className = "origin";
    return details;
  }

  trail({ trail, gate }) {
    const total = Object.values(trail.seconds).reduce((sum, one) => sum + one, 0);
    const searched = new Set(trail.clusters_searched.map(({ cluster_id }) => cluster_id));
    const REASONS = { near: "near", picked: "picked by the model", hedge: "near, though not picked" };
    const details = folded(`How it was found: ${number(trail.n_rows_scanned)} rows, ${seconds(total)}, ${dollars(trail.usd)}`,
      facts([
        ["cells", `${number(trail.n_cells_searched)} of ${number(trail.n_cells_total)} searched`],
        ["rows", `${number(trail.n_rows_scanned)} of ${number(trail.n_rows_total)} compared (${percent(trail.share_scanned)})`],
        ["gate", [gate.verdict.replace("_", " "), gate.probability === null ? null : `probability ${gate.probability.toFixed(3)}`,
          gate.threshold === null ? null : `threshold ${gate.threshold.toFixed(3)}`].filter(Boolean).join(", ")],
        ["calibrated", gate.provenance],
        ["false accepts", gate.false_accepts === null ? null : percent(gate.false_accepts)],
      ]),
      table("Seconds by stage", [["stage"], ["seconds", true]],
        Object.entries(trail.seconds).map(([stage, s]) => [stage, s.toFixed(3)])),
      table("Clusters considered, best first", [["cluster"], ["score", true], ["searched"], ["why"]],
        trail.clusters_considered.map((one) => [`${one.cluster_id}: ${one.title}`, one.score.toFixed(3),
          searched.has(one.cluster_id) ? "yes" : "no", REASONS[one.reason] ?? one.reason])),
      trail.calls.length ? table("Calls of paid models", [["for"], ["model"], ["outcome"], ["seconds", true], ["dollars", true]],
        trail.calls.map((one) => [one.purpose, one.model, one.outcome + (one.is_cached ? ", from the cache" : ""),
          one.seconds.toFixed(2), `${one.usd.toFixed(4)}${one.is_billed ? "" : " at most"}`]))
        : element("p", { className: "soft", text: "No paid model was asked." }));
    details.classList.add("trail");
    return details;
  }

  // -- the map beside it

  showMap() {
    const { map, shown } = this;
    byId("side").hidden = !map || (!map.n && shown === null);
    if (!map) return;
    byId("figure").hidden = !map.n;
    const trail = shown?.pool === this.mapOf ? shown.trail : null;
    map.lit = new Set(trail?.clusters_searched.map(({ cluster_id }) => cluster_id));
    map.chosen = null;
    byId("card").hidden = true;
    const pins = trail ? map.find(shown.passages.map(({ chunk_id }) => chunk_id)) : new Map();
    byId("pins").replaceChildren(...(trail ? shown.passages : []).filter(({ chunk_id }) => pins.has(chunk_id))
      .reverse().map((one) => {
        const pin = element("li", { text: String(one.rank), "data-rank": one.rank });
        Object.assign(pin.style, map.place(pins.get(one.chunk_id)));
        return pin;
      }));
    const names = trail?.clusters_searched.map(({ title }) => title).join("; ");
    byId("caption").textContent = trail
      ? "Lit: the clusters that were searched. Numbers: the passages that are on the map."
      : "Each dot is a passage; near is alike. Colours are clusters.";
    byId("map").setAttribute("aria-label", trail
      ? `Map of the pool; searched: ${names}` : `Map of the pool: ${counted(map.n, "passage")}`);
    byId("searched").replaceChildren(...(trail ? this.searched(trail) : []));
    map.draw(byId("map"));
  }

  searched(trail) {
    const chips = (clusters) => element("ul", { className: "chips" }, ...clusters.map((one) => element("li", {},
      this.topic(one.cluster_id, one.title, () => this.choose(one.cluster_id), "",
        { "data-cluster": one.cluster_id, "aria-pressed": "false" }))));
    const clusters = trail.clusters_searched, more = clusters.slice(N_SEARCHED);
    const most = Math.max(1, ...trail.rounds.map(({ n_rows_scanned }) => n_rows_scanned));
    const rounds = element("ol", { className: "rounds" }, ...trail.rounds.map((one) => {
      const bar = element("b");
      bar.style.width = width(one.n_rows_scanned / most);
      return element("li", {},
        element("span", { text: `${counted(one.n_cells, "cell")}, ${counted(one.n_rows_scanned, "row")}` }),
        element("span", { text: one.probability === null ? one.verdict.replace("_", " ") : sureness(one.probability) }),
        element("i", { "aria-hidden": "true" }, bar));
    }));
    return [
      element("h2", { text: `Searched: ${counted(clusters.length, "cluster")}` }),
      chips(clusters.slice(0, N_SEARCHED)),
      ...(more.length ? [folded(`${number(more.length)} more`, chips(more))] : []),
      ...(trail.rounds.length ? [element("h2", { text: trail.rounds.length > 1
        ? `Widened ${trail.rounds.length === 2 ? "once" : `${trail.rounds.length - 1} times`}` : "One round was enough" }), rounds] : []),
    ];
  }

  choose(clusterId) { // lights one cluster and tells of it; once more lets it go
    const { map } = this;
    if (!map) return;
    map.chosen = map.chosen === clusterId ? null : clusterId;
    const one = map.byId.get(map.chosen);
    byId("card").hidden = !one;
    if (one) {
      byId("card-title").textContent = one.title;
      byId("card-size").textContent = counted(one.n_chunks, "passage");
      byId("card-summary").textContent = one.summary;
      byId("card-words").textContent = one.keywords.join(", ");
      this.say(`${one.title}, ${counted(one.n_chunks, "passage")}. ${one.summary}`);
    }
    for (const chip of document.querySelectorAll("[data-cluster]")) {
      chip.setAttribute("aria-pressed", Number(chip.dataset.cluster) === map.chosen);
    }
    map.draw(byId("map"));
  }

  // -- moving

  goTo(rank) {
    const article = byId(`passage-${rank}`);
    if (!article) return;
    const around = article.parentElement.closest("details");
    if (around) around.open = true;
    this.at = this.shown.passages.findIndex((one) => one.rank === rank);
    article.focus({ preventScroll: true });
    article.scrollIntoView({ block: "center" });
    article.classList.remove("cited");
    requestAnimationFrame(() => article.classList.add("cited"));
    for (const pin of byId("pins").children) pin.classList.toggle("now", Number(pin.dataset.rank) === rank);
  }

  step(by) {
    const passages = this.shown?.passages ?? [];
    const to = Math.max(0, Math.min(passages.length - 1, this.at + by));
    if (passages[to]) this.goTo(passages[to].rank);
  }

  fit() { // the box is as high as the question
    const box = byId("question");
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + 2}px`;
  }

  // -- listening

  listen() {
    byId("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    byId("question").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.ask();
    });
    byId("question").addEventListener("input", () => this.fit());
    byId("stop").addEventListener("click", () => this.asking?.abort());
    byId("pool").addEventListener("change", async () => {
      byId("trouble").hidden = true;
      await this.showPool();
      if (byId("question").value.trim() && this.facts.writer === null) await this.ask();
    });
    byId("keys").addEventListener("click", () => byId("help").showModal());
    byId("letters").addEventListener("change", (event) => {
      this.areLettersKeys = event.target.checked;
      localStorage.setItem(LETTERS, this.areLettersKeys ? "on" : "off");
    });
    byId("door-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.service.token = byId("token").value.trim();
      byId("token").value = "";
      byId("door").close();
      document.documentElement.dataset.state = "opening";
      this.start();
    });
    addEventListener("hashchange", () => { if (this.facts) this.readHash(); });
    addEventListener("resize", () => this.map?.draw(byId("map")));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.map?.draw(byId("map")));
    addEventListener("keydown", (event) => this.press(event));
  }

  press(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      if (this.asking) this.asking.abort();
      else if (this.map && this.map.chosen !== null) this.choose(this.map.chosen);
      else if (event.target === byId("question")) byId("question").blur();
      return;
    }
    const isWriting = event.target.matches("input, textarea, select");
    if (isWriting || !this.areLettersKeys) return;
    if (event.key === "/") {
      byId("question").focus();
      byId("question").select();
    } else if (event.key === "?") byId("help").showModal();
    else if (event.key === "j") this.step(1);
    else if (event.key === "k") this.step(-1);
    else if (event.key === "o") {
      const origin = document.activeElement.closest(".passage")?.querySelector(".origin");
      if (origin) origin.open = !origin.open;
    } else return;
    event.preventDefault();
  }
}

new Page().start();
