// The map's page: what is drawn where, what is found, and what is said of it.
//
// Everything that comes from the corpus is set by textContent, nothing is parsed as markup, and
// nothing is asked of anywhere: the page's policy forbids both.
"use strict";

const MAX_ZOOM = 60; // the grid of 65,536 steps shows no steps up to here on 1,000 pixels
const HOVER_PIXELS = 14; // how near a point must be to the pointer; chosen
const OPEN_SHARE = 0.36; // of the view: a wider group shows what it holds instead; by eye
const OPEN_ZOOM = 1.15; // while no closer, groups are not opened; the whole map fills the view at 1
const FEW = 4; // fewer groups say too little of a whole map, and are opened all the same
const LIST_LIMIT = 200; // entries under one heading: more than that is found, not read
const MAX_LABEL_CHARS = 38;
const SEARCH_PAUSE_MS = 120; // after the last letter; chosen
const MOVE_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 450;
const NOISE = 16, DIM = 17; // places after the clusters' hues in the list of colours
const BACK = 0, MIDDLE = 1, FRONT = 2, LAYER_SIZES = [0.8, 1, 1.35]; // drawn in this order
const DISC_PIXELS = 3; // of the screen; smaller points are squares
const SIZE_STEPS = 4; // of a pixel: so many sizes of points there are

const byId = (id) => document.getElementById(id);
const map = byId("map"), card = byId("card"), ring = byId("ring");
const number = (n) => n.toLocaleString("en");
const counted = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;

function element(name, { text = "", className = "", ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function complain(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = false;
}

// ---- what the page holds ---------------------------------------------------------------------

function bytesOf(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i += 1) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

async function readContent() {
  const packed = bytesOf(byId("content").textContent.trim());
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const content = JSON.parse(await new Response(plain).text());
  const little = (Type, text) => new Type(bytesOf(text).buffer); // little-endian, as all browsers are
  const { x, y, node, is_noise, dataset, document } = content.points;
  content.points = {
    n: content.beginnings.length,
    x: Float32Array.from(little(Uint16Array, x), (value) => value / 65535),
    y: Float32Array.from(little(Uint16Array, y), (value) => 1 - value / 65535),
    node: little(Uint32Array, node),
    isNoise: bytesOf(is_noise),
    dataset: little(Uint16Array, dataset),
    document: little(Uint32Array, document),
  };
  for (const one of content.nodes) {
    one.children = [];
    one.path = [];
    if (one.place) one.place.y = 1 - one.place.y;
  }
  content.nodes.forEach((one, index) => {
    if (one.parent !== null) content.nodes[one.parent].children.push(index);
    for (let at = one.parent; at !== null; at = content.nodes[at].parent) one.path.unshift(at);
  });
  return content;
}

// ---- points --------------------------------------------------------------------------------------

// Points are squares while nobody can tell (a third of the time), then copies of one disc of their hue.
class Points {
  constructor(canvas, points) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.points = points;
    this.batches = [];
    this.discs = new Map(); // by size and hue
  }

  // Sorts the points by layer and hue, so that like ones are drawn together.
  paint(hues, layers, colours) {
    const order = Float64Array.from({ length: this.points.n },
      (_, i) => (layers[i] << 8 | hues[i]) * 2 ** 24 + i).sort();
    this.batches = [];
    for (const key of order) {
      const kind = Math.floor(key / 2 ** 24), i = key % 2 ** 24;
      const last = this.batches.at(-1);
      if (last?.kind === kind) last.indices.push(i);
      else this.batches.push({ kind, layer: kind >> 8, hue: kind & 255, indices: [i] });
    }
    this.colours = colours;
    this.discs.clear();
  }

  disc(hue, pixels) { // of the screen
    const key = `${hue} ${pixels}`;
    if (!this.discs.has(key)) {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = Math.ceil(pixels) + 2;
      const context = canvas.getContext("2d"), middle = canvas.width / 2;
      context.fillStyle = this.colours[hue];
      context.arc(middle, middle, pixels / 2, 0, 2 * Math.PI);
      context.fill();
      this.discs.set(key, canvas);
    }
    return this.discs.get(key);
  }

  draw(view, width, height, size) {
    const { canvas, context, points: { x, y } } = this;
    const ratio = devicePixelRatio || 1;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    context.clearRect(0, 0, w, h);
    for (const { layer, hue, indices } of this.batches) {
      const pixels = Math.round(SIZE_STEPS * size * LAYER_SIZES[layer] * ratio) / SIZE_STEPS;
      const disc = pixels < DISC_PIXELS ? null : this.disc(hue, pixels);
      const side = disc?.width ?? pixels;
      context.fillStyle = this.colours[hue];
      for (const i of indices) {
        const left = (x[i] * view.k + view.x) * ratio - side / 2;
        const top = (y[i] * view.k + view.y) * ratio - side / 2;
        if (left > w || top > h || left + side < 0 || top + side < 0) continue;
        if (disc) context.drawImage(disc, Math.round(left), Math.round(top));
        else context.fillRect(left, top, side, side);
      }
    }
  }
}

// ---- labels --------------------------------------------------------------------------------------

// Which nodes are named: a group until it is wide on the screen, then what it holds. While the whole
// map is seen, its groups are named however wide, unless they are few.
function* openNodes(nodes, indices, k, viewSize) {
  const isFar = k < OPEN_ZOOM * viewSize && indices.length >= FEW;
  for (const index of indices) {
    const { is_cluster, place, children } = nodes[index];
    const isOpen = !is_cluster && (!place || (!isFar && 2 * place.reach * k > OPEN_SHARE * viewSize));
    if (isOpen) yield* openNodes(nodes, children, k, viewSize);
    else if (place) yield index;
  }
}

// Boxes on a grid of cells, so that a new one is compared with its neighbours only.
class Boxes {
  constructor(cell) {
    this.cell = cell;
    this.cells = new Map();
  }

  add(box) { // false, and not added, where it would overlap
    const keys = [];
    for (let u = Math.floor(box.left / this.cell); u * this.cell < box.right; u += 1) {
      for (let v = Math.floor(box.top / this.cell); v * this.cell < box.bottom; v += 1) {
        keys.push(`${u},${v}`);
      }
    }
    const overlaps = (other) => box.left < other.right && other.left < box.right
      && box.top < other.bottom && other.top < box.bottom;
    if (keys.some((key) => this.cells.get(key)?.some(overlaps))) return false;
    for (const key of keys) {
      if (this.cells.has(key)) this.cells.get(key).push(box);
      else this.cells.set(key, [box]);
    }
    return true;
  }
}

class Labels {
  constructor(holder, nodes, onPick) {
    this.holder = holder;
    this.nodes = nodes;
    this.onPick = onPick;
    this.roots = nodes.flatMap((node, index) => node.parent === null ? [index] : []);
    this.shown = new Map();
    this.placed = [];
    const measure = document.createElement("canvas").getContext("2d");
    const family = getComputedStyle(document.body).fontFamily;
    this.boxes = nodes.map((node) => {
      const letters = [...node.title];
      const text = letters.length > MAX_LABEL_CHARS
        ? `${letters.slice(0, MAX_LABEL_CHARS - 1).join("").trimEnd()}…` : node.title;
      const size = node.is_cluster ? 12 : 14, weight = node.is_cluster ? 500 : 700;
      measure.font = `${weight} ${size}px ${family}`;
      return { text, size, weight, width: Math.ceil(measure.measureText(text).width) + 12, height: 1.5 * size };
    });
  }

  // Anew for every zoom, for all of the map: so a label does not come or go while the map moves.
  arrange(k, viewSize) {
    const open = [...openNodes(this.nodes, this.roots, k, viewSize)];
    open.sort((a, b) => this.nodes[a].is_cluster - this.nodes[b].is_cluster
      || this.nodes[b].n_points - this.nodes[a].n_points || a - b);
    const boxes = new Boxes(160);
    this.placed = open.filter((index) => {
      const { place } = this.nodes[index], { width, height } = this.boxes[index];
      const left = place.x * k - width / 2, top = place.y * k - height / 2;
      return boxes.add({ left, top, right: left + width + 4, bottom: top + height + 2 });
    });
  }

  show(view, width, height, isDim) {
    const seen = new Set();
    for (const index of this.placed) {
      const { place } = this.nodes[index], box = this.boxes[index];
      const left = place.x * view.k + view.x - box.width / 2;
      const top = place.y * view.k + view.y - box.height / 2;
      if (left > width || top > height || left + box.width < 0 || top + box.height < 0) continue;
      seen.add(index);
      const label = this.shown.get(index) ?? this.make(index);
      label.style.transform = `translate(${left.toFixed(1)}px, ${top.toFixed(1)}px)`;
      label.classList.toggle("dim", isDim(index));
    }
    for (const [index, label] of this.shown) {
      if (!seen.has(index)) {
        label.remove();
        this.shown.delete(index);
      }
    }
  }

  make(index) {
    const box = this.boxes[index], node = this.nodes[index];
    const label = element("div", { text: box.text, className: "label", "data-level": node.path.length });
    label.dataset.kind = node.is_cluster ? "cluster" : "group";
    label.style.width = `${box.width}px`;
    label.style.fontSize = `${box.size}px`;
    label.style.fontWeight = box.weight;
    label.addEventListener("click", (event) => {
      event.stopPropagation();
      this.onPick(index);
    });
    this.holder.append(label);
    this.shown.set(index, label);
    return label;
  }
}

// ---- search --------------------------------------------------------------------------------------

// A point is found when each word is in what is told of it: its passage, document, cluster, groups.
class Search {
  constructor({ points, nodes, beginnings, documents }) {
    this.points = points;
    this.passages = beginnings.map((text) => text.toLowerCase());
    this.documents = documents.map((text) => text.toLowerCase());
    this.titles = nodes.map((node) =>
      [node, ...node.path.map((index) => nodes[index])]
        .flatMap(({ title, keywords }) => [title, ...keywords]).join("\n").toLowerCase());
  }

  find(query) { // indices of points
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    const inTitle = words.map((word) => this.titles.map((title) => title.includes(word)));
    const inDocument = words.map((word) => this.documents.map((name) => name.includes(word)));
    const { node, document } = this.points;
    const found = [];
    for (let i = 0; i < this.points.n; i += 1) {
      const isFound = words.every((word, w) =>
        inTitle[w][node[i]] || inDocument[w][document[i]] || this.passages[i].includes(word));
      if (isFound) found.push(i);
    }
    return found;
  }
}

// ---- the page ------------------------------------------------------------------------------------

class Page {
  constructor(content) {
    this.content = content;
    this.size = { width: 1, height: 1 };
    this.view = d3.zoomIdentity;
    this.arrangedFor = "";
    this.found = null; // indices of points, or null where nothing is looked for
    this.chosen = null; // a node
    this.isLit = new Set(); // nodes that hold something found
    this.hovered = this.held = null; // a point
    const { points } = content;
    this.tree = d3.quadtree().x((i) => points.x[i]).y((i) => points.y[i]).addAll(d3.range(points.n));
    this.labels = new Labels(byId("labels"), content.nodes, (index) => this.choose(index));
    this.search = new Search(content);
    this.points = new Points(byId("points"), points);
    this.zoom = d3.zoom()
      .scaleExtent([0.5, MAX_ZOOM])
      .on("zoom", ({ transform }) => this.move(transform));
    this.target = d3.select(map).call(this.zoom).on("dblclick.zoom", null);
    this.tell();
    this.list();
    this.listen();
    this.paint();
    this.resize();
    this.showAll(0);
  }

  // -- telling

  tell() {
    const { pool, n_chunks, points, nodes, datasets, n_laid_out } = this.content;
    const clusters = nodes.filter((node) => node.is_cluster);
    const nNoise = points.isNoise.reduce((sum, one) => sum + one, 0);
    byId("pool").textContent = pool;
    byId("counts").textContent = `${counted(points.n, "passage")} of ${number(n_chunks)}, `
      + counted(clusters.length, "cluster");
    const share = points.n ? Math.round(100 * nNoise / points.n) : 0;
    byId("noise").textContent = `noise, in no cluster: ${number(nNoise)} (${share} %)`;
    byId("datasets").replaceChildren(...datasets.map(({ name, licence, has_text }) =>
      element("li", { className: "foreign", text: `${name}: ${licence}${has_text ? "" : ", without texts"}` })));
    byId("how").textContent = n_laid_out < points.n
      ? `${number(n_laid_out)} laid out by t-SNE, the others beside their nearest`
      : "laid out by t-SNE: near is alike, far says little";
    byId("search").disabled = false;
  }

  list(found = null) {
    const { nodes, points } = this.content;
    const counts = new Map();
    const add = (index) => counts.set(index, (counts.get(index) ?? 0) + 1);
    for (const i of found ?? []) {
      add(points.node[i]);
      nodes[points.node[i]].path.forEach(add);
    }
    const numberOf = (index) => found ? counts.get(index) ?? 0 : nodes[index].size;
    const entries = (indices) => {
      const kept = indices.filter((index) => !found || counts.has(index))
        .sort((a, b) => numberOf(b) - numberOf(a) || a - b);
      const rows = kept.slice(0, LIST_LIMIT).map((index) => {
        const node = nodes[index];
        const dot = element("span", { className: "dot" });
        if (node.hue !== null) dot.style.background = `var(--hue-${node.hue})`;
        const button = element("button", {
          type: "button", "data-node": index, "aria-pressed": index === this.chosen,
          "aria-label": `${node.title}, ${counted(numberOf(index), "passage")}${found ? " found" : ""}`,
          title: node.keywords.join(", "),
        }, ...(node.is_cluster ? [dot] : []),
        element("span", { className: "title foreign", text: node.title }),
        element("span", { className: "number", text: number(numberOf(index)) }));
        const row = element("li", { className: node.is_cluster ? "" : "group" }, button);
        if (node.children.length) row.append(entries(node.children));
        return row;
      });
      if (kept.length > LIST_LIMIT) {
        const text = `and ${number(kept.length - LIST_LIMIT)} smaller ones: search for them`;
        rows.push(element("li", { className: "rest", text }));
      }
      return element("ul", {}, ...rows);
    };
    this.isLit = new Set(counts.keys());
    byId("clusters").replaceChildren(entries(this.labels.roots));
  }

  say(i) { // for those who do not see the map
    const { points, nodes, beginnings } = this.content;
    const title = nodes[points.node[i]].title;
    byId("said").textContent = `${points.isNoise[i] ? `Noise near ${title}` : title}: `
      + (beginnings[i] || "text withheld");
  }

  // -- what is lit, and what is drawn

  colours() {
    const style = getComputedStyle(document.documentElement);
    const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    const hues = this.content.hues.map((hue) => {
      const light = d3.lab(hue);
      if (isDark) light.l = Math.min(88, light.l + 18);
      return light;
    });
    hues.forEach((hue, index) =>
      document.documentElement.style.setProperty(`--hue-${index}`, hue.formatHex()));
    const painted = hues.map((hue) => hue.copy({ opacity: 0.82 }).formatRgb());
    return [...painted, ...["--noise", "--dim"].map((name) => style.getPropertyValue(name).trim())];
  }

  paint() {
    const { points, nodes } = this.content;
    const hues = new Uint8Array(points.n), layers = new Uint8Array(points.n);
    const isAll = this.found === null && this.chosen === null;
    const isFound = new Uint8Array(points.n);
    for (const i of this.found ?? []) isFound[i] = 1;
    for (let i = 0; i < points.n; i += 1) {
      const node = nodes[points.node[i]];
      const isLit = isAll || (this.found !== null && isFound[i])
        || (this.chosen !== null && (points.node[i] === this.chosen || node.path.includes(this.chosen)));
      if (!isLit) hues[i] = DIM;
      else hues[i] = points.isNoise[i] ? NOISE : node.hue;
      if (isAll) layers[i] = points.isNoise[i] ? BACK : MIDDLE;
      else layers[i] = isLit ? FRONT : BACK;
    }
    this.points.paint(hues, layers, this.colours());
    this.draw();
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      const { width, height } = this.size;
      const k = this.view.k * this.unit;
      const view = { k, x: this.view.x, y: this.view.y };
      const arrangedFor = `${k} ${width} ${height}`;
      if (arrangedFor !== this.arrangedFor) this.labels.arrange(k, Math.min(width, height));
      this.arrangedFor = arrangedFor;
      const dots = d3.scalePow([5e3, 1e5], [3.6, 1.9]).exponent(-0.25).clamp(true)(this.content.points.n);
      this.points.draw(view, width, height, Math.min(13, dots * this.view.k ** 0.4));
      const isDim = (index) => this.chosen !== null
        ? index !== this.chosen && !this.content.nodes[index].path.includes(this.chosen)
        : this.found !== null && !this.isLit.has(index);
      this.labels.show(view, width, height, isDim);
      this.place();
      map.dataset.zoom = this.view.k.toFixed(3);
    });
  }

  // -- moving

  get unit() { return Math.min(this.size.width, this.size.height); } // pixels of the map at zoom 1

  get free() { // the part of the view that the panel leaves
    const { width, height } = this.size;
    const panel = byId("panel").getBoundingClientRect();
    return panel.width < width / 2
      ? { left: panel.right, top: 0, width: width - panel.right, height }
      : { left: 0, top: panel.bottom, width, height: height - panel.bottom };
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = map;
    this.size = { width: Math.max(1, width), height: Math.max(1, height) };
    this.zoom.extent([[0, 0], [width, height]])
      .translateExtent([[-this.unit, -this.unit], [2 * this.unit, 2 * this.unit]]);
    this.draw();
  }

  move(transform) {
    this.view = transform;
    if (this.held === null) this.hover(null);
    this.draw();
  }

  show({ left, top, right, bottom }, milliseconds = MOVE_MS) { // a part of the map, in its own unit
    const { free, unit } = this;
    const wide = Math.max(right - left, bottom - top, 1e-9);
    const k = Math.min(MAX_ZOOM / 2, 0.88 * Math.min(free.width, free.height) / (wide * unit));
    const x = free.left + free.width / 2 - k * unit * (left + right) / 2;
    const y = free.top + free.height / 2 - k * unit * (top + bottom) / 2;
    const wanted = d3.zoomIdentity.translate(x, y).scale(k);
    if (milliseconds) this.target.transition().duration(milliseconds).call(this.zoom.transform, wanted);
    else this.target.call(this.zoom.transform, wanted);
  }

  showAll(milliseconds = MOVE_MS) { this.show({ left: 0, top: 0, right: 1, bottom: 1 }, milliseconds); }

  showPoints(indices) {
    const { x, y } = this.content.points;
    const [left, right] = d3.extent(indices, (i) => x[i]);
    const [top, bottom] = d3.extent(indices, (i) => y[i]);
    this.show({ left, right, top, bottom });
  }

  // -- choosing and finding

  choose(index) {
    const node = index === this.chosen ? null : index;
    this.chosen = node;
    this.paint();
    for (const button of byId("clusters").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", Number(button.dataset.node) === this.chosen && node !== null);
    }
    if (node === null) return;
    const place = this.content.nodes[node].place;
    if (!place) return;
    const reach = 1.5 * place.reach;
    this.show({ left: place.x - reach, right: place.x + reach, top: place.y - reach, bottom: place.y + reach });
  }

  look(query) {
    this.chosen = null;
    if (!query.trim()) {
      this.found = null;
      byId("found").textContent = "";
    } else {
      this.found = this.search.find(query);
      const nodes = new Set(this.found.map((i) => this.content.points.node[i]));
      byId("found").textContent = this.found.length
        ? `${counted(this.found.length, "passage")} in ${counted(nodes.size, "cluster")}; Enter shows them`
        : "nothing found";
    }
    this.list(this.found);
    this.paint();
  }

  // -- one passage

  at(x, y, pixels = HOVER_PIXELS) { // the nearest point there, or null
    const k = this.view.k * this.unit;
    return this.tree.find((x - this.view.x) / k, (y - this.view.y) / k, pixels / k) ?? null;
  }

  hover(i) {
    if (i === this.hovered) return;
    this.hovered = i;
    if (this.held === null) this.describe(i);
  }

  hold(i) {
    this.held = i;
    this.describe(i ?? this.hovered);
  }

  describe(i) {
    card.hidden = i === null;
    card.classList.toggle("held", this.held !== null);
    byId("close").hidden = this.held === null;
    ring.hidden = i === null;
    if (i === null) return;
    const { points, nodes, datasets, beginnings, documents } = this.content;
    const node = nodes[points.node[i]], dataset = datasets[points.dataset[i]];
    byId("group").textContent = node.path.map((index) => nodes[index].title).join(" › ");
    byId("cluster").textContent = points.isNoise[i] ? `noise, nearest to ${node.title}` : node.title;
    byId("hue").style.background = points.isNoise[i] ? "var(--noise)" : `var(--hue-${node.hue})`;
    byId("keywords").textContent = this.held === null ? "" : node.keywords.join(", ");
    byId("beginning").textContent = dataset.has_text ? beginnings[i]
      : "The text may not be redistributed.";
    byId("beginning").classList.toggle("withheld", !dataset.has_text);
    byId("document").textContent = documents[points.document[i]];
    byId("dataset").textContent = `· ${dataset.name}`;
    card.dataset.point = i;
    this.place();
  }

  place() { // card and ring follow their point
    const i = this.held ?? this.hovered;
    if (i === null) return;
    const { points } = this.content, k = this.view.k * this.unit;
    const x = points.x[i] * k + this.view.x, y = points.y[i] * k + this.view.y;
    ring.style.transform = `translate(${x}px, ${y}px)`;
    const { offsetWidth: wide, offsetHeight: high } = card;
    const { width, height } = this.size;
    const left = x + 16 + wide < width - 12 ? x + 16 : x - 16 - wide;
    const clamp = (value, most) => Math.max(12, Math.min(value, most - 12));
    card.style.transform = `translate(${clamp(left, width - wide)}px, ${clamp(y - 20, height - high)}px)`;
  }

  // -- listening

  listen() {
    addEventListener("resize", () => this.resize());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
    map.addEventListener("pointermove", (event) => {
      if (!event.buttons) this.hover(this.at(event.clientX, event.clientY));
    });
    map.addEventListener("pointerleave", () => this.hover(null));
    map.addEventListener("click", (event) => {
      this.hold(this.at(event.clientX, event.clientY));
      if (this.held !== null) this.say(this.held);
    });
    map.addEventListener("keydown", (event) => this.press(event));
    byId("close").addEventListener("click", () => { this.hold(null); map.focus(); });
    byId("closer").addEventListener("click", () => this.scale(1.6));
    byId("farther").addEventListener("click", () => this.scale(1 / 1.6));
    byId("all").addEventListener("click", () => this.showAll());
    byId("clusters").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.choose(Number(button.dataset.node));
    });
    let pause = 0;
    byId("search").addEventListener("input", () => {
      clearTimeout(pause);
      pause = setTimeout(() => this.look(byId("search").value), SEARCH_PAUSE_MS);
    });
    byId("form").addEventListener("submit", (event) => {
      event.preventDefault();
      clearTimeout(pause);
      this.look(byId("search").value);
      if (this.found?.length) this.showPoints(this.found);
    });
    addEventListener("keydown", (event) => {
      if (event.key === "/" && event.target !== byId("search")) {
        event.preventDefault();
        byId("search").focus();
      } else if (event.key === "Escape") this.letGo();
    });
  }

  scale(factor) { this.target.transition().duration(MOVE_MS / 2).call(this.zoom.scaleBy, factor); }

  letGo() { // of the passage first, then of the cluster, then of what was looked for
    if (this.held !== null) this.hold(null);
    else if (this.chosen !== null) this.choose(this.chosen);
    else if (this.found !== null) {
      byId("search").value = "";
      this.look("");
    }
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 80 / this.view.k;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key in moves) this.target.call(this.zoom.translateBy, ...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.target.call(this.zoom.scaleBy, 1.4);
    else if (event.key === "-") this.target.call(this.zoom.scaleBy, 1 / 1.4);
    else if (event.key === "0" || event.key === "Home") this.showAll(0);
    else if (event.key === "Enter") this.hold(this.hovered);
    else return;
    event.preventDefault();
    if (event.key === "Enter") return;
    const { left, top, width, height } = this.free;
    const nearest = this.at(left + width / 2, top + height / 2, Infinity);
    this.hover(nearest);
    if (nearest !== null) this.say(nearest);
  }
}

readContent().then((content) => {
  new Page(content);
  document.documentElement.dataset.state = "ready";
}).catch((error) => {
  complain(`This map cannot be read (${error.message}): the file is incomplete, or the browser too old.`);
  throw error;
});
