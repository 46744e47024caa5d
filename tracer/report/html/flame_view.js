// The flame graph with its controls, by pointer and by keys.

const FLAME_VALUES = {
  bytes: { title: "Bytes", of: (site) => R.sites.bytes[site], show: size },
  count: { title: "Blocks", of: (site) => R.sites.count[site], show: blocks },
  growth: { title: "Growth", of: (site) => R.sites.growth[site] || 0, show: rate },
};
// What was chosen stays when another view is looked at meanwhile.
const flameState = { value: "bytes", inverted: false, zoomed: 0, chosen: 0, query: "" };
const flameShapes = {};
// Pixels across a sheet of paper.
const PAPER = 680;

class Flame {
  constructor() {
    this.width = 0;
    this.boxes = [];
    this.matches = null;
    this.canvas = el("canvas", { class: "flame", tabindex: "0", role: "application",
      "aria-label": "Flame graph. Arrows move between calls, Enter gives a call the whole width, Escape goes back, slash searches." });
    this.search = el("input", { type: "search", placeholder: "Search  ( / )", value: flameState.query, spellcheck: "false",
      "aria-label": "Search functions and files in the flame graph" });
    this.found = el("span", { class: "found", role: "status" });
    this.details = el("div", { class: "details", "aria-live": "polite" });
    this.whole = el("button", { type: "button", on: { click: () => this.zoom(0) } }, "Whole graph");
    this.graph = el("div", { class: "graph" }, this.canvas);
    this.listen();
    this.rebuild();
    new ResizeObserver(() => {
      const now = Math.floor(this.graph.clientWidth);
      if (now && now !== this.width) this.fit();
    }).observe(this.graph);
  }

  rebuild() {
    const shape = flameShapes[flameState.inverted] ||= treeShape(flameState.inverted);
    this.tree = { ...shape, ...treeValues(shape, FLAME_VALUES[flameState.value].of) };
    for (const each of ["zoomed", "chosen"]) if (!this.tree.total[flameState[each]]) flameState[each] = 0;
    this.lookFor();
  }

  fit(width) {
    this.width = width || Math.floor(this.graph.clientWidth);
    this.draw();
  }

  show(value) {
    return FLAME_VALUES[flameState.value].show(value);
  }

  // Marks what a search finds, and says what is held below it; a match inside another counts once.
  lookFor() {
    const { tree } = this, sought = words(flameState.query);
    this.matches = null;
    this.found.textContent = "";
    if (sought.length) {
      const hits = sought.map(framesWith), inside = new Uint8Array(tree.frame.length);
      let held = 0, calls = 0;
      this.matches = tree.frame.map((frame) => frame >= 0 && hits.every((each) => each[frame]));
      this.matches.forEach((hit, node) => {
        const outer = node > 0 && inside[tree.parent[node]];
        inside[node] = hit || outer ? 1 : 0;
        if (hit && tree.total[node]) calls += 1;
        if (hit && !outer) held += tree.total[node];
      });
      this.found.textContent = `${whole(calls)} call${calls === 1 ? "" : "s"}: ${this.show(held)}, ${percent(held / tree.total[0])}`;
    }
    this.draw();
  }

  draw() {
    if (!this.width) return;
    this.boxes = flameBoxes(this.tree, flameState.zoomed, this.width);
    drawFlame(this.canvas, this.tree, this.boxes, { ...flameState, matches: this.matches, width: this.width });
    this.whole.disabled = !flameState.zoomed;
    this.canvas.dataset.chosen = nodeName(this.tree, flameState.chosen);
    this.canvas.dataset.zoomed = nodeName(this.tree, flameState.zoomed);
    this.describe(flameState.chosen);
  }

  describe(node) {
    const { tree } = this, total = tree.total[node], name = nodeName(tree, node);
    const shares = [`${percent(total / tree.total[0])} of all`];
    if (flameState.zoomed && tree.depth[node] >= tree.depth[flameState.zoomed]) {
      shares.push(`${percent(total / tree.total[flameState.zoomed])} of what is shown`);
    }
    const own = tree.own[node] && total > tree.own[node] ? `, ${this.show(tree.own[node])} of it without a further call` : "";
    this.details.replaceChildren(
      el("p", { class: "name" }, node ? breakable(name) : "All stacks"),
      el("p", { class: "facts" }, el("b", {}, this.show(total)), ` · ${shares.join(", ")}${own}`,
        node ? ` · ${text(R.frames.module[tree.frame[node]]) || "no file"} · ` : "",
        node ? el("a", { href: "#sites", on: { click: () => { Object.assign(sitesState, { query: `"${name}"`, verdict: null, active: 0 }); } } },
          `${whole(tree.sites[node])} site${tree.sites[node] === 1 ? "" : "s"}`) : ` · ${whole(tree.sites[0])} sites`));
  }

  zoom(node) {
    flameState.zoomed = flameState.chosen = node;
    this.draw();
  }

  choose(node) {
    flameState.chosen = node;
    this.draw();
    const box = this.boxes.find((each) => each.node === node);
    const place = this.canvas.getBoundingClientRect().top + (box ? box.row : 0) * ROW;
    if (place < 140 || place > window.innerHeight - 40) window.scrollBy(0, place - window.innerHeight / 2);
  }

  boxAt(event) {
    const place = this.canvas.getBoundingClientRect();
    const x = event.clientX - place.left, row = Math.floor((event.clientY - place.top) / ROW);
    return this.boxes.find((box) => box.row === row && x >= box.x && x < box.x + Math.max(box.width, 1));
  }

  callerOf(box) {
    return this.boxes.find((each) => each.node >= 0 && each.row === box.row - 1 && each.x <= box.x && box.x < each.x + each.width).node;
  }

  // Where an arrow leads: to the caller, the largest call, or the neighbour.
  neighbour(key) {
    const { chosen } = flameState, box = this.boxes.find((each) => each.node === chosen);
    if (key === "Home") return 0;
    if (key === "ArrowUp") return this.tree.parent[chosen];
    if (key === "ArrowDown") return (this.tree.children[chosen] || [])[0];
    const row = this.boxes.filter((each) => box && each.node >= 0 && each.row === box.row).sort((one, other) => one.x - other.x);
    return (row[row.indexOf(box) + (key === "ArrowLeft" ? -1 : 1)] || {}).node;
  }

  key(event) {
    if (["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home"].includes(event.key)) {
      const next = this.neighbour(event.key);
      if (next >= 0) this.choose(next);
    } else if (event.key === "Enter" || event.key === " ") this.zoom(flameState.chosen);
    else if (event.key === "Escape") this.zoom(Math.max(0, this.tree.parent[flameState.zoomed]));
    else return;
    event.preventDefault();
  }

  searchKey(event) {
    if (event.key === "Enter" && this.matches) {
      const order = this.boxes.map((box) => box.node).filter((node) => node >= 0 && this.matches[node])
        .sort((one, other) => this.tree.total[other] - this.tree.total[one]);
      if (order.length) this.choose(order[(order.indexOf(flameState.chosen) + 1) % order.length]);
    } else if (event.key === "Escape") {
      this.search.value = flameState.query = "";
      this.lookFor();
      this.canvas.focus();
    }
  }

  listen() {
    const { canvas, search } = this;
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("click", (event) => {
      const box = this.boxAt(event);
      // Of those too small to be seen, their caller.
      if (box) this.zoom(box.node < 0 ? this.callerOf(box) : box.node);
    });
    canvas.addEventListener("pointermove", (event) => {
      const box = this.boxAt(event);
      canvas.classList.toggle("over", Boolean(box));
      canvas.title = box && box.node < 0 ? nodeName(this.tree, -1) : "";
      this.describe(box && box.node >= 0 ? box.node : flameState.chosen);
    });
    canvas.addEventListener("pointerleave", () => this.describe(flameState.chosen));
    for (const event of ["focus", "blur"]) canvas.addEventListener(event, () => this.draw());
    search.addEventListener("input", () => {
      flameState.query = search.value;
      this.lookFor();
    });
    search.addEventListener("keydown", (event) => this.searchKey(event));
  }
}

function flameView() {
  const flame = new Flame(), remark = el("span", {});
  const grows = R.sites.growth.some((each) => each > 0);
  const shrinks = R.sites.growth.reduce((sum, each) => sum + Math.min(0, each || 0), 0);
  const remarkOn = (value) => {
    remark.textContent = value !== "growth" ? "" : shrinks < -0.5 ? `Sites that grow; others shrink by ${rate(shrinks)} in all, and are not drawn.` : "Sites that grow.";
  };
  remarkOn(flameState.value);
  const tools = el("div", { class: "tools" },
    choice("What the width of a call says", Object.entries(FLAME_VALUES).filter(([name]) => name !== "growth" || grows)
      .map(([name, each]) => [name, each.title]), flameState.value, (value) => {
      flameState.value = value;
      remarkOn(value);
      flame.rebuild();
    }),
    choice("Order of calls", [["false", "Callers first"], ["true", "Allocation first"]], String(flameState.inverted), (value) => {
      Object.assign(flameState, { inverted: value === "true", zoomed: 0, chosen: 0 });
      flame.rebuild();
    }), flame.search, flame.found, flame.whole);
  const hint = el("p", { class: "hint" },
    !R.sources.length && [el("i", { class: "key flame-own" }), "the program's code  ", el("i", { class: "key flame-lib" }), "libraries. "],
    "Click or Enter gives a call the whole width, Escape goes back, arrows move. ", remark);
  return { title: "Flame graph", redraw: () => flame.fit(), print: () => flame.fit(PAPER), search: flame.search,
    node: section("Flame graph", { class: "panel wide" }, tools, flame.details, flame.graph, hint) };
}
