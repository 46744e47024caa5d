// The page of one site: what is said of it, its figures, how it developed, and where it allocates.

const KINDS = ["definitely lost", "indirectly lost", "possibly lost", "still reachable"];

function figure(title, value, remark) {
  return el("div", { class: "figure" }, el("dt", {}, title), el("dd", {}, value, remark && el("small", {}, remark)));
}

function reachabilityBar(kinds) {
  if (!kinds) return null;
  const total = kinds.reduce((sum, [bytes]) => sum + bytes, 0);
  return el("div", { class: "kinds" },
    el("div", { class: "meter", "aria-hidden": "true" }, kinds.map(([bytes], kind) => bytes
      ? el("i", { class: `kind-${kind}`, style: { "flex-grow": String(bytes / (total || 1)) } }) : null)),
    el("ul", { class: "legend" }, kinds.map(([bytes, count], kind) => el("li", { class: bytes ? "" : "none" },
      el("i", { class: `key kind-${kind}` }), el("span", {}, KINDS[kind]), el("b", {}, bytes ? `${size(bytes)} in ${blocks(count)}` : "none")))));
}

function siteFigures(site) {
  const s = R.sites, slope = s.slope[site], total = R.totals.live_bytes;
  const between = slope && slope[1] !== null && slope[2] !== null && slope[1] !== slope[2] ? `between ${rate(slope[1])} and ${rate(slope[2])}` : null;
  return el("dl", { class: "figures" },
    figure("Outstanding", `${s.error[site] ? "≈ " : ""}${size(s.bytes[site])}`, total ? `${percent(s.bytes[site] / total)} of all, ${whole(s.bytes[site])} bytes` : null),
    figure("Blocks", whole(s.count[site]), s.count[site] ? `${size(s.bytes[site] / s.count[site])} each on average` : null),
    figure("Growth", rate(s.growth[site]), between),
    s.gained[site] !== null && figure("Since the report before", `${s.gained[site] > 0 ? "+" : ""}${size(s.gained[site])}`,
      `${s.gainedCount[site] > 0 ? "+" : ""}${whole(s.gainedCount[site])} blocks`),
    s.loss[site] > 0 && figure("Expected to lose", rate(s.loss[site]), "if nothing changes"),
    figure("Ever freed", percent(freedShare(site)), `${whole(s.freed[site])} of ${whole(s.allocated[site])} blocks`),
    s.oldest[site] !== null && figure("Oldest block", duration(s.oldest[site])),
    s.error[site] !== null && figure("Standard error", `±${percent(s.error[site])}`, "figures are estimates"));
}

function siteProcesses(site) {
  const holders = R.processes.flatMap((each) => each.shares.filter(([rank]) => rank === site + 1)
    .map(([, bytes, count]) => ({ name: each.name, bytes, count }))).sort((one, other) => other.bytes - one.bytes);
  if (R.sites.processes[site] < 2 || !holders.length) return null;
  return section("In processes", {}, el("ul", { class: "lines" }, holders.slice(0, 50).map((each) => el("li", {}, el("b", {}, size(each.bytes)), ` in ${blocks(each.count)}: ${each.name}`))));
}

function siteSteps(site) {
  const step = (to, words, key) => (to >= 0 && to < R.count ? el("a", { href: siteLink(to), class: "step", rel: key }, words) : null);
  return el("nav", { class: "steps", "aria-label": "Sites" }, el("a", { href: "#sites" }, "All sites"), step(site - 1, `← site ${site}`, "prev"), step(site + 1, `site ${site + 2} →`, "next"));
}

function siteCurve(site) {
  if (!hasCurves()) return null;
  const series = [{ name: "outstanding at this site", values: fullCurve(site), colour: verdictOf(site) || "series-0" }];
  return section("Over time", {}, timeChart({ label: "Outstanding bytes of this site over time", times: R.curves.times, series,
    stacked: true, mark: R.curves.number, height: 190 }));
}

function siteView(site) {
  const s = R.sites, evidence = text(s.evidence[site]), about = text(s.about[site]);
  const source = text(s.source[site]), made = s.stacks[site];
  const facts = [source === "heap" || about ? null : source, made > 1 ? `${whole(made)} stacks put together` : null,
    s.processes[site] > 1 ? `in ${whole(s.processes[site])} processes` : s.pid[site] ? `pid ${s.pid[site]}` : null, about].filter(Boolean);
  const name = siteName(site);
  return { title: name, back: "#sites", node: el("article", { class: "site" },
    siteSteps(site),
    el("header", { class: "panel" },
      el("p", { class: "rank" }, `Site ${site + 1} of ${whole(R.count)} `, badge(verdictOf(site), CONFIDENCES[s.confidence[site]])),
      el("h1", {}, breakable(name)),
      evidence && el("p", { class: "evidence" }, evidence, "."),
      facts.length > 0 && el("p", { class: "hint" }, facts.join(" · ")),
      siteFigures(site)),
    el("div", { class: "halves" },
      section("Where it allocates", {}, el("p", { class: "hint" }, R.sources.length ? "Innermost call first." : "Innermost call first; the program's own are set off from libraries'."), stackList(s.stack[site])),
      el("div", { class: "aside" }, siteCurve(site),
        s.reachability[site] && section("What still points to its blocks", {}, reachabilityBar(s.reachability[site])), siteProcesses(site))),
    s.blocks[site].length > 0 && section("Blocks", {}, el("ul", { class: "addresses" }, s.blocks[site].map(([address, bytes]) => el("li", {}, `0x${address}, ${whole(bytes)} bytes`))))) };
}
