// The report as the page uses it. Python wrote it: tracer/report/html_data.py and html_stacks.py say what it has.

const VERDICTS = [null, "lost", "growing", "steady", "undecided"];
const CONFIDENCES = [null, "high", "medium", "low"];
const INLINED = 1, LIBRARY = 2, CUT = 4;
const WHY = { unmapped: "nothing is mapped there", no_symbols: "no symbols", not_covered: "no symbol covers it",
  gone: "file gone", unreadable: "file unreadable", unwind_stopped: "the stack could not be followed further" };

let R = null;
let packedCurves = null;

async function inflate(base64) {
  const bytes = Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function load() {
  const held = document.getElementById("data");
  const packed = JSON.parse(held.textContent);
  held.remove();
  const [report, curves] = await Promise.all([inflate(packed.report), packed.curves ? inflate(packed.curves) : null]);
  R = JSON.parse(new TextDecoder().decode(report));
  packedCurves = curves;
  R.count = R.sites.key.length;
  R.byKey = new Map(R.sites.key.map((key, site) => [key, site]));
}

function text(number) {
  return number < 0 ? null : R.texts[number];
}

// The frames of a stack, innermost first, by number.
function framesOf(call) {
  const frames = [];
  for (let at = call; at >= 0; at = R.calls.caller[at]) frames.push(R.calls.frame[at]);
  return frames;
}

function frameName(frame) {
  return text(R.frames.name[frame]);
}

function siteName(site) {
  return text(R.sites.name[site]);
}

function siteLink(site) {
  return `#site-${R.sites.key[site]}`;
}

function verdictOf(site) {
  return VERDICTS[R.sites.verdict[site]];
}

// The file in which a site's innermost frame with a name is, which is where it allocates.
function siteModule(site) {
  const innermost = R.sites.stack[site];
  return innermost < 0 ? "" : baseName(text(R.frames.module[R.calls.frame[innermost]]));
}

// The words of a search; what stands in quotes is one word.
function words(query) {
  return [...query.toLowerCase().matchAll(/"([^"]*)"?|(\S+)/g)].map((found) => found[1] ?? found[2]).filter(Boolean);
}

// For each frame whether its name, file or source has a word.
function framesWith(word) {
  const hits = R.texts.map((each) => each.toLowerCase().includes(word));
  const { name, module, file } = R.frames;
  return name.map((each, frame) => hits[each] || hits[module[frame]] || hits[file[frame]] || false);
}

// For each call whether it, or one further out, is of such a frame.
function callsBelow(frames) {
  const found = new Uint8Array(R.calls.frame.length);
  for (let call = 0; call < found.length; call++) {
    const caller = R.calls.caller[call];
    found[call] = frames[R.calls.frame[call]] || (caller >= 0 && found[caller]) ? 1 : 0;
  }
  return found;
}
