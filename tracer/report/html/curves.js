// How sites developed. A row is decoded when it is looked at: html_series.py says how it is written.

let curveStarts = null;
const decodedCurves = new Map();

function hasCurves() {
  return Boolean(R.curves) && R.curves.times.length > 1;
}

// The bytes of a site at each of the times of curveTimes(site).
function curve(site) {
  let values = decodedCurves.get(site);
  if (values) return values;
  if (!curveStarts) {
    let start = 0;
    curveStarts = R.curves.lengths.map((length) => (start += length) - length);
  }
  const full = site < R.curves.exact;
  values = new Float64Array(full ? R.curves.times.length : R.curves.fewer.length);
  const factor = full ? 1 : 2 ** R.curves.shifts[site - R.curves.exact];
  let at = curveStarts[site], value = 0;
  for (let index = 0; index < values.length; index++) {
    let folded = 0, weight = 1, byte;
    do {
      byte = packedCurves[at++];
      folded += (byte & 127) * weight;
      weight *= 128;
    } while (byte & 128);
    value += folded % 2 ? -(folded + 1) / 2 : folded / 2;
    values[index] = value * factor;
  }
  decodedCurves.set(site, values);
  return values;
}

function curveTimes(site) {
  return site < R.curves.exact ? R.curves.times : R.curves.fewer.map((index) => R.curves.times[index]);
}

// The bytes of a site at all times; of one that has fewer, as of the last before.
function fullCurve(site) {
  const values = curve(site);
  if (site < R.curves.exact) return values;
  let last = 0;
  return Float64Array.from(R.curves.times, (_, index) => {
    while (last + 1 < R.curves.fewer.length && R.curves.fewer[last + 1] <= index) last += 1;
    return values[last];
  });
}

function sparkline(site, width, height) {
  const values = curve(site), times = curveTimes(site);
  const highest = Math.max(...values, 1), first = times[0], span = times[times.length - 1] - first || 1;
  const points = Array.from(values, (value, index) =>
    `${((times[index] - first) / span * width).toFixed(1)},${(height - 1.5 - value / highest * (height - 3)).toFixed(1)}`);
  return svg("svg", { class: `spark ${verdictOf(site) || ""}`, viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
    svg("polygon", { points: `0,${height} ${points.join(" ")} ${width},${height}` }),
    svg("polyline", { points: points.join(" ") }));
}
