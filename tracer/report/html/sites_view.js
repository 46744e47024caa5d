// All sites in a table, of which only the rows in sight are there.

const COLUMNS = [
  { id: "rank", title: "#", of: (site) => site, up: true, show: (site) => String(site + 1) },
  { id: "verdict", title: "Verdict", of: (site) => [9, 0, 1, 3, 2][R.sites.verdict[site]], up: true,
    show: (site) => badge(verdictOf(site), CONFIDENCES[R.sites.confidence[site]]) || "–" },
  { id: "name", title: "Function", of: (site) => siteName(site).toLowerCase(), up: true, show: (site) => [
    el("a", { href: siteLink(site), tabindex: "-1", title: siteName(site) }, shortName(siteName(site))),
    el("span", { class: "module" }, siteModule(site))] },
  { id: "bytes", title: "Outstanding", of: (site) => R.sites.bytes[site], show: (site) => size(R.sites.bytes[site]) },
  { id: "count", title: "Blocks", of: (site) => R.sites.count[site], show: (site) => whole(R.sites.count[site]) },
  { id: "growth", title: "Growth", of: (site) => R.sites.growth[site] ?? -Infinity, show: (site) => rate(R.sites.growth[site]) },
  { id: "freed", title: "Freed", of: (site) => freedShare(site), show: (site) => percent(freedShare(site)) },
  { id: "oldest", title: "Oldest", of: (site) => R.sites.oldest[site] ?? -1, show: (site) => duration(R.sites.oldest[site]) },
  { id: "trend", title: "Over time", show: (site) => (hasCurves() ? sparkline(site, 110, 24) : "") },
];
const sitesState = { query: "", verdict: null, source: null, sort: "rank", down: false, active: 0 };

function freedShare(site) {
  return R.sites.freed[site] / R.sites.allocated[site];
}

// The sites that a search and the chosen verdict and source leave, in their order.
function chosenSites() {
  const { query, verdict, source, sort, down } = sitesState;
  const stacks = words(query).map((word) => ({ word, calls: callsBelow(framesWith(word)) }));
  const column = COLUMNS.find((each) => each.id === sort);
  const found = [];
  for (let site = 0; site < R.count; site++) {
    if (verdict && verdictOf(site) !== verdict) continue;
    if (source && text(R.sites.source[site]) !== source) continue;
    const said = () => `${text(R.sites.evidence[site]) || ""} ${text(R.sites.about[site]) || ""}`.toLowerCase();
    if (stacks.every(({ word, calls }) => calls[R.sites.stack[site]] || said().includes(word))) found.push(site);
  }
  const values = Array.from({ length: R.count }, () => null);
  for (const site of found) values[site] = column.of(site);
  const sign = down ? -1 : 1;
  return found.sort((one, other) => (values[one] < values[other] ? -sign : values[one] > values[other] ? sign : one - other));
}

class Sites {
  constructor() {
    this.rows = el("div", { class: "rows", role: "rowgroup" });
    this.grid = el("div", { class: "body", tabindex: "0", role: "grid", "aria-label": "Sites. Arrows move, Enter opens.",
      on: { scroll: () => this.draw(), keydown: (event) => this.key(event) } }, this.rows);
    this.head = el("div", { class: "row head", role: "row" }, COLUMNS.map((column) => el("div", { class: `cell ${column.id}`, role: "columnheader", "data-column": column.id },
      column.of ? el("button", { type: "button", on: { click: () => this.sort(column) } }, column.title) : column.title)));
    this.status = el("p", { class: "found", role: "status" });
    this.search = el("input", { type: "search", value: sitesState.query, spellcheck: "false", placeholder: "Filter by function, file, evidence  ( / )",
      "aria-label": "Filter sites by function, file or evidence; a stack matches by any of its frames",
      on: { input: () => { sitesState.query = this.search.value; sitesState.active = 0; this.choose(); },
        keydown: (event) => { if (["ArrowDown", "Enter"].includes(event.key)) { event.preventDefault(); this.grid.focus(); } } } });
    new ResizeObserver(() => this.resize()).observe(this.grid);
    this.choose();
  }

  sort(column) {
    const again = sitesState.sort === column.id;
    Object.assign(sitesState, { sort: column.id, down: again ? !sitesState.down : !column.up, active: 0 });
    this.choose();
  }

  choose() {
    this.shown = chosenSites();
    for (const cell of this.head.children) {
      if (cell.dataset.column === sitesState.sort) cell.setAttribute("aria-sort", sitesState.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    const held = this.shown.reduce((sum, site) => sum + R.sites.bytes[site], 0);
    this.status.textContent = `${whole(this.shown.length)} of ${whole(R.count)} site${R.count === 1 ? "" : "s"}, ${size(held)}`;
    this.grid.setAttribute("aria-rowcount", this.shown.length);
    this.grid.scrollTop = 0;
    this.resize();
  }

  resize() {
    // Style says how high a row is, as on a narrow screen it has two lines.
    this.row = parseFloat(getComputedStyle(this.grid).getPropertyValue("--row")) || 32;
    this.rows.style.height = `${this.shown.length * this.row}px`;
    this.draw();
  }

  draw(all) {
    const first = all ? 0 : Math.max(0, Math.floor(this.grid.scrollTop / this.row) - 6);
    const last = all ? Math.min(this.shown.length, 300) : Math.min(this.shown.length, first + Math.ceil(this.grid.clientHeight / this.row) + 12);
    const made = [];
    for (let place = first; place < last; place++) made.push(this.line(place));
    this.rows.replaceChildren(...made);
    if (!this.shown.length) this.rows.append(el("p", { class: "hint" }, R.count ? "No site matches." : "Nothing is outstanding."));
    this.grid.setAttribute("aria-activedescendant", `row-${sitesState.active}`);
  }

  line(place) {
    const site = this.shown[place];
    return el("div", { class: place === sitesState.active ? "row active" : "row", role: "row", id: `row-${place}`, "aria-rowindex": place + 1,
      style: { top: `${place * this.row}px` }, on: { click: (event) => this.click(event, place) } },
    COLUMNS.map((column) => el("div", { class: `cell ${column.id}`, role: "gridcell" }, column.show(site))));
  }

  click(event, place) {
    sitesState.active = place;
    // A link in the row is followed as the reader's keys say, perhaps in another tab.
    if (!event.target.closest("a")) location.hash = siteLink(this.shown[place]);
  }

  // Shows the row that was chosen before another view was looked at.
  reveal() {
    this.resize();
    this.grid.scrollTop = Math.max(0, (sitesState.active + 1) * this.row - this.grid.clientHeight / 2);
    this.draw();
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.grid.clientHeight / this.row) - 1), { active } = sitesState;
    const moves = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: this.shown.length - 1 };
    if (event.key === "Enter" && this.shown.length) location.hash = siteLink(this.shown[active]);
    else if (!(event.key in moves)) return;
    else {
      sitesState.active = Math.max(0, Math.min(this.shown.length - 1, moves[event.key]));
      const top = sitesState.active * this.row, { scrollTop, clientHeight } = this.grid;
      if (top < scrollTop) this.grid.scrollTop = top;
      else if (top + this.row > scrollTop + clientHeight) this.grid.scrollTop = top + this.row - clientHeight;
      this.draw();
    }
    event.preventDefault();
  }
}

function sitesView() {
  const sites = new Sites();
  const verdicts = [...new Set(R.sites.verdict)].map((code) => VERDICTS[code]).filter(Boolean)
    .sort((one, other) => VERDICTS.indexOf(one) - VERDICTS.indexOf(other));
  const sources = [...new Set(R.sites.source)].map(text);
  const pick = (name) => (value) => { sitesState[name] = value || null; sitesState.active = 0; sites.choose(); };
  const tools = el("div", { class: "tools" }, sites.search,
    verdicts.length > 0 && choice("Verdict", [["", "All"], ...verdicts.map((each) => [each, each])], sitesState.verdict || "", pick("verdict")),
    sources.length > 1 && choice("Source", [["", "All sources"], ...sources.map((each) => [each, each])], sitesState.source || "", pick("source")),
    sites.status);
  return { title: "Sites", search: sites.search, print: () => sites.draw(true), redraw: () => sites.draw(),
    shown: () => sites.reveal(), focus: sites.grid,
    node: section("Sites", { class: "panel wide" }, tools, el("div", { class: `table${hasCurves() ? "" : " plain"}` }, sites.head, sites.grid)) };
}
