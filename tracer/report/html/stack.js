// A stack as a list of calls, innermost first; the program's own stand out, with their source where it is there.

function sourceLines(frame) {
  const excerpt = (R.excerpts || {})[R.frames.file[frame]], line = R.frames.line[frame];
  if (!excerpt || !line) return null;
  const near = excerpt.lines.filter(([number]) => Math.abs(number - line) <= 3);
  if (!near.some(([number]) => number === line)) return null;
  return el("div", { class: "source" },
    excerpt.changed && el("p", { class: "doubt" }, "This file was changed after the report: lines may have moved."),
    near.map(([number, content]) => el("div", { class: number === line ? "line here" : "line" },
      el("span", { class: "number" }, String(number)), el("code", {}, content || " "))));
}

// A library's name that is longer than two lines is short until it is asked for.
function functionName(name, library) {
  const short = library ? shortName(name) : name;
  const shown = el("span", { class: "function" }, breakable(name));
  if (name.length <= 160 || short === name) return shown;
  const more = el("button", { type: "button", class: "more", "aria-expanded": "false", title: "The whole name", on: { click: () => {
    const open = more.getAttribute("aria-expanded") === "false";
    more.setAttribute("aria-expanded", String(open));
    shown.replaceChildren(...breakable(open ? name : short));
  } } }, "…");
  shown.replaceChildren(...breakable(short));
  return [shown, more];
}

function frameItem(frame, open) {
  const { frames: f } = R, library = f.flags[frame] & LIBRARY;
  const why = text(f.why[frame]), module = text(f.module[frame]), file = text(f.file[frame]);
  if (f.flags[frame] & CUT) {
    return el("li", { class: "library" }, el("span", { class: "function" }, f.address[frame] === "0"
      ? "no room was left to record the stack" : WHY.unwind_stopped));
  }
  const place = file && `${file}${f.line[frame] ? `:${f.line[frame]}` : ""}`;
  const source = sourceLines(frame);
  const offset = f.offset[frame] >= 0 ? `+0x${f.offset[frame].toString(16)}` : "";
  return el("li", { class: library ? "library" : "own" },
    el("div", { class: "call" },
      functionName(frameName(frame), library),
      why && el("span", { class: "tag" }, WHY[why] || why),
      f.flags[frame] & INLINED ? el("span", { class: "tag" }, "inlined") : null,
      f.repeats[frame] > 1 && el("span", { class: "tag", title: "Recursion: so many times in a row" }, `×${f.repeats[frame]}`)),
    el("div", { class: "where" },
      place && el("span", { class: "place" }, breakable(place)),
      module && el("span", { class: "module", title: module }, baseName(module)),
      el("span", { class: "address" }, `0x${f.address[frame]}${offset ? ` (${offset})` : ""}`)),
    source && el("details", { open }, el("summary", {}, "Source"), source));
}

function stackList(call) {
  let shown = 0;
  const items = framesOf(call).map((frame) => {
    const own = !(R.frames.flags[frame] & LIBRARY);
    return frameItem(frame, own && sourceLines(frame) !== null && shown++ < 3);
  });
  return items.length ? el("ol", { class: "stack" }, items) : el("p", { class: "hint" }, "No room was left to record this stack.");
}
