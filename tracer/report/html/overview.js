// What a reader should know first: what is held, what is wrong, where the memory is, how it grew.

const DRAWN = 8;
const SERIES_ORDERS = {
  bytes: ["Largest", (site) => R.sites.bytes[site]],
  growth: ["Growing most", (site) => R.sites.growth[site] || 0],
};
const overviewState = { order: "bytes", stacked: true };

function tile(title, value, ...remarks) {
  return el("div", { class: "tile" }, el("p", { class: "title" }, title), el("p", { class: "value" }, value), el("p", { class: "remark" }, remarks));
}

function totalGrowth() {
  if (!hasCurves()) return null;
  const { times, bytes, number } = R.curves;
  return number > 0 ? (bytes[number] - bytes[0]) / (times[number] - times[0]) : null;
}

function verdictTiles() {
  const sums = VERDICTS.map(() => [0, 0]);
  R.sites.verdict.forEach((code, site) => { sums[code][0] += 1; sums[code][1] += R.sites.bytes[site]; });
  const open = (verdict) => ({ click: () => Object.assign(sitesState, { verdict, query: "", active: 0 }) });
  if (sums[0][0] === R.count) return null;
  return el("div", { class: "verdicts" }, VERDICTS.map((verdict, code) => verdict && el("a", { href: "#sites", class: `judged ${verdict}${sums[code][0] ? "" : " none"}`, on: open(verdict) },
    el("b", {}, whole(sums[code][0])), el("span", {}, verdict), el("small", {}, sums[code][0] ? size(sums[code][1]) : "–"))));
}

function summary() {
  const { totals } = R, growth = totalGrowth();
  const lost = R.losses.reduce((sum, loss) => sum + loss.count, 0);
  return el("div", { class: "tiles" },
    tile("Outstanding", `${R.sampling ? "≈ " : ""}${size(totals.live_bytes)}`, `in ${blocks(totals.live_count)} at ${whole(R.known)} site${R.known === 1 ? "" : "s"}${R.known > R.count ? `, of which the first ${whole(R.count)} are here` : ""}`),
    growth !== null && tile("Growth", rate(growth), `over ${duration(R.curves.times[R.curves.number] - R.curves.times[0])}, all sites`),
    tile("Allocated", size(totals.allocated_bytes), `${whole(totals.allocated_count)} times, ${percent(totals.freed_count / totals.allocated_count)} freed again`),
    tile("Traced for", duration(R.elapsed), R.taken),
    R.misuses && R.misuses.found.length > 0 && tile("Wrong frees", whole(R.misuses.found.length), el("a", { href: "#trace" }, "places, with their stacks")),
    tile("Complete", R.complete ? "yes" : "no", lost ? el("a", { href: "#trace" }, `${whole(R.losses.length)} kind${R.losses.length === 1 ? "" : "s"} of loss`) : "nothing was lost"));
}

function timeline() {
  if (!hasCurves()) {
    return section("Outstanding memory over time", {}, el("p", { class: "hint" }, "There is one report, so there is no curve: trace with --record FILE and an interval to have one."));
  }
  const place = el("div", {});
  const draw = () => {
    const [, value] = SERIES_ORDERS[overviewState.order];
    const sites = R.sites.key.map((_, site) => site).sort((one, other) => value(other) - value(one)).slice(0, DRAWN);
    const series = sites.map((site, index) => ({ name: siteName(site), link: siteLink(site), values: fullCurve(site), colour: `series-${index}` }));
    const rest = Array.from(R.curves.bytes, (all, index) => Math.max(0, all - series.reduce((sum, each) => sum + each.values[index], 0)));
    series.push({ name: overviewState.stacked ? `${whole(R.known - sites.length)} other sites` : "all sites", colour: "series-rest", values: overviewState.stacked ? rest : R.curves.bytes });
    if (overviewState.stacked && R.known <= sites.length && rest.every((each) => !each)) series.pop();
    place.replaceChildren(timeChart({ label: "Outstanding bytes over time", times: R.curves.times, series, stacked: overviewState.stacked, mark: R.curves.number, height: 260 }));
  };
  draw();
  const { reports, times } = R.curves;
  return section("Outstanding memory over time", {},
    el("div", { class: "tools" },
      choice("Which sites", Object.entries(SERIES_ORDERS).map(([name, [title]]) => [name, title]), overviewState.order, (order) => { overviewState.order = order; draw(); }),
      choice("How", [["true", "Stacked"], ["false", "Lines"]], String(overviewState.stacked), (stacked) => { overviewState.stacked = stacked === "true"; draw(); })),
    place, times.length < reports && el("p", { class: "hint" }, `Drawn from ${times.length} of ${whole(reports)} reports.`));
}

// Growth is worth a word where the verdict does not say that it has ended.
function leaks(site) {
  return ["lost", "growing", null].includes(verdictOf(site));
}

function firstSites() {
  const leaking = R.sites.verdict.findIndex((_, site) => !leaks(site));
  const shown = Math.min(R.count, Math.max(5, Math.min(leaking < 0 ? R.count : leaking, 10)));
  return section("What to look at first", {},
    shown === 0 && el("p", { class: "hint" }, "Nothing is outstanding."),
    el("ol", { class: "first" }, R.sites.key.slice(0, shown).map((_, site) => el("li", {},
      el("a", { href: siteLink(site), class: "entry" },
        el("span", { class: "rank" }, `${site + 1}`),
        el("span", { class: "name" }, breakable(shortName(siteName(site)))),
        badge(verdictOf(site), CONFIDENCES[R.sites.confidence[site]]) || el("span", {}),
        el("span", { class: "held" }, el("b", {}, size(R.sites.bytes[site])), ` in ${blocks(R.sites.count[site])}${leaks(site) && R.sites.growth[site] > 0.5 ? `, ${rate(R.sites.growth[site])}` : ""}`),
        hasCurves() ? sparkline(site, 110, 26) : el("span", {}),
        text(R.sites.evidence[site]) && el("span", { class: "evidence" }, text(R.sites.evidence[site])))))),
    R.count > shown && el("p", {}, el("a", { href: "#sites" }, `All ${whole(R.count)} sites`)));
}

function memoryHead(head) {
  return section(head.title.split(":")[0], { class: "panel memory" },
    el("p", {}, head.title.slice(head.title.indexOf(":") + 2), "."),
    el("div", { class: "meter", "aria-hidden": "true" }, head.parts.map((part) => el("i", { class: `part-${part.name}`, title: `${part.label}: ${size(part.bytes)}`, style: { "flex-grow": String(part.bytes / (head.rss || 1)) } }))),
    el("ul", { class: "legend" }, head.parts.map((part) => el("li", {}, el("i", { class: `key part-${part.name}` }),
      el("span", {}, part.label), el("b", {}, size(part.bytes), part.growth ? `, ${rate(part.growth)}` : "")))),
    head.conclusion && el("p", { class: "conclusion" }, head.conclusion),
    head.limit.map((line) => el("p", { class: "hint" }, line)));
}

function kernelSources() {
  if (!R.sources.length) return null;
  return section("By source", {}, el("ul", { class: "lines" }, R.sources.map((each) => el("li", {}, el("b", {}, size(each.bytes)), ` in ${blocks(each.count)}: ${each.source}`,
    each.serving ? `, ${size(each.serving)} of it for slabs and vmalloc` : ""))));
}

function overview() {
  return { title: "Overview", node: el("div", { class: "overview" }, summary(),
    R.sampling && el("p", { class: "hint" }, `Figures are estimates from ${R.sampling}${R.error ? `, ±${percent(R.error)} in total (one standard error)` : ""}.`),
    verdictTiles(), firstSites(), timeline(), R.memory.map(memoryHead), kernelSources(),
    R.reachability && section("What still points to the blocks", {}, reachabilityBar(R.reachability))) };
}
