// How far the report can be trusted, and what it is of.

function lossList() {
  return section("What was lost", {}, R.losses.length === 0 ? el("p", {}, "Nothing: every event was counted.") : el("ul", { class: "losses" },
    R.losses.map((loss) => el("li", {}, el("p", {}, el("b", {}, whole(loss.count)), ` ${loss.meaning}`), el("p", { class: "remedy" }, loss.remedy), el("p", { class: "hint" }, loss.name)))));
}

function noteList() {
  const untraced = R.untraced.map(([why, count]) => `${count} process${count === 1 ? "" : "es"} not traced: ${why}`);
  const scans = R.scans.map((scan) => (scan.failed ? `The memory of pid ${scan.pid} was not looked at: ${scan.failed}`
    : `${size(scan.bytes_read)} of pid ${scan.pid} looked at; it stood still for ${duration(scan.stopped_s)}${scan.unreadable ? `; ${size(scan.unreadable)} could not be read` : ""}${
      scan.not_stopped ? `; ${scan.not_stopped} threads did not stop` : ""}`));
  const said = [...R.notes, ...untraced, ...scans];
  return said.length ? section("Notes", {}, el("ul", { class: "notes" }, said.map((each) => el("li", {}, each)))) : null;
}

function misuseList() {
  if (!R.misuses) return null;
  const { found, undecided } = R.misuses;
  const stack = (title, call) => (call === null ? null : el("div", {}, el("h4", {}, title), stackList(call)));
  return section("Wrong frees", {}, found.length === 0 && el("p", {}, "None."),
    found.map((each) => el("details", { class: "misuse" }, el("summary", {}, el("span", { class: "badge lost" }, each.kind), " ", each.sentence),
      stack("Allocated", each.allocated), stack("Freed before", each.before), stack("Freed", each.freed))),
    undecided > 0 && el("p", { class: "hint" }, `${undecided}${found.length ? " more" : ""} may be mismatched; the code that allocated or freed has no symbols.`));
}

function processList() {
  if (!R.processes.length) return null;
  return section(R.processes.length === 1 ? "Process" : `${whole(R.processes.length)} processes`, {},
    el("ul", { class: "lines" }, R.processes.map((each) => el("li", {},
      each.totals && el("b", {}, `${size(each.totals.live_bytes)} in ${blocks(each.totals.live_count)}: `), each.name,
      each.exe && el("span", { class: "hint" }, ` ${each.exe}`),
      R.processes.length > 1 && each.shares.length > 0 && el("span", { class: "hint" }, " at ", each.shares.slice(0, 6).map(([rank, bytes], index) => [index ? ", " : "",
        rank > 0 && rank <= R.count ? el("a", { href: siteLink(rank - 1) }, `site ${rank}`) : "a site that is not shown", ` ${size(bytes)}`]))))));
}

function factTable() {
  const rows = [["Target", R.title], ["Report of", R.taken], ["Traced for", duration(R.elapsed)], ["Kernel", R.kernel],
    ["Figures", R.sampling ? `estimates from ${R.sampling}` : "exact"], ...R.facts].filter(([, value]) => value);
  return section("The trace", {}, el("dl", { class: "facts" }, rows.map(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))])));
}

function traceView() {
  const pointers = R.pointers.map((note) => el("li", {}, el("p", {}, `Who points at ${note.asked}`), el("pre", {}, note.chain.join("\n"))));
  return { title: "Trace", node: el("div", { class: "overview" }, lossList(), noteList(), misuseList(),
    pointers.length > 0 && section("Pointers", {}, el("ul", { class: "notes" }, pointers)),
    R.cross.length > 0 && section("The kernel's own books", {}, el("pre", {}, R.cross.join("\n"))),
    processList(), factTable()) };
}
