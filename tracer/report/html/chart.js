// A chart over time. Pointer and arrow keys choose a moment, whose values stand in the legend.

const MARGIN = { left: 64, right: 14, top: 10, bottom: 26 };

// series: {name, values, colour: a class, link}; stacked: on each other; mark: the moment of the report.
function timeChart({ label, times, series, stacked, mark, height }) {
  const drawing = svg("svg", { class: series.length === 1 ? "chart single" : "chart", role: "img", tabindex: "0", "aria-label": `${label}. Left and right arrow choose a moment.` });
  const legend = el("ul", { class: "legend" });
  const when = el("p", { class: "when", "aria-live": "polite" });
  const made = el("div", { class: "charted" }, drawing, when, legend);
  let width = 0, at = mark, line = null;
  const first = times[0], span = times[times.length - 1] - first || 1;
  const base = new Float64Array(times.length);
  const bands = series.map((each) => {
    const low = Float64Array.from(base);
    const high = Float64Array.from(each.values, (value, index) => (stacked ? (base[index] += value) : value));
    return { ...each, low, high };
  });
  const highest = Math.max(1, ...bands.map((band) => band.high.reduce((most, value) => Math.max(most, value), 0)));
  const figures = series.map((each) => {
    const value = el("b", {});
    legend.append(el("li", {}, el("i", { class: `key ${each.colour}` }),
      each.link ? el("a", { href: each.link, title: each.name }, shortName(each.name)) : el("span", { title: each.name }, each.name), value));
    return value;
  });

  const x = (time) => MARGIN.left + (time - first) / span * (width - MARGIN.left - MARGIN.right);
  const y = (value) => height - MARGIN.bottom - value / highest * (height - MARGIN.top - MARGIN.bottom);

  function choose(index) {
    at = Math.max(0, Math.min(times.length - 1, index));
    const place = x(times[at]);
    line.setAttribute("x1", place);
    line.setAttribute("x2", place);
    when.textContent = `${at === mark ? "This report, " : ""}${duration(times[at])} after the start`;
    figures.forEach((figure, index) => { figure.textContent = size(series[index].values[at]); });
  }

  function draw() {
    const parts = [];
    const step = axisStep(highest, 4, true);
    for (let value = 0; value <= highest; value += step) {
      parts.push(svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
        svg("text", { class: "tick", x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, value ? size(value) : "0"));
    }
    const every = timeStep(span, Math.max(2, Math.floor(width / 110)));
    for (let time = Math.ceil(first / every) * every; time <= first + span; time += every) {
      parts.push(svg("text", { class: "tick", x: x(time), y: height - 7, "text-anchor": "middle" }, time ? duration(time) : "0"));
    }
    const point = (values) => (value, index) => `${x(times[index]).toFixed(1)},${y(values[index]).toFixed(1)}`;
    for (const band of bands) {
      const top = Array.from(band.high, point(band.high));
      if (stacked) {
        const bottom = Array.from(band.low, point(band.low)).reverse();
        parts.push(svg("polygon", { class: `band ${band.colour}`, points: [...top, ...bottom].join(" ") }));
      }
      parts.push(svg("polyline", { class: `curve ${band.colour}`, points: top.join(" ") }));
    }
    if (mark < times.length - 1) {
      parts.push(svg("line", { class: "mark", x1: x(times[mark]), x2: x(times[mark]), y1: MARGIN.top, y2: height - MARGIN.bottom }));
    }
    line = svg("line", { class: "cursor", y1: MARGIN.top, y2: height - MARGIN.bottom });
    drawing.replaceChildren(...parts, line);
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("height", height);
    choose(at);
  }

  function nearest(event) {
    const place = event.clientX - drawing.getBoundingClientRect().left;
    let best = 0;
    times.forEach((time, index) => { if (Math.abs(x(time) - place) < Math.abs(x(times[best]) - place)) best = index; });
    choose(best);
  }
  drawing.addEventListener("pointermove", nearest);
  drawing.addEventListener("pointerdown", nearest);
  drawing.addEventListener("pointerleave", () => choose(mark));
  drawing.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: times.length - 1, Escape: mark };
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(moves[event.key]);
  });
  new ResizeObserver(() => {
    const now = Math.round(made.clientWidth);
    if (now && now !== width) { width = now; draw(); }
  }).observe(made);
  return made;
}
