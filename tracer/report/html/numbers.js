// Numbers as a reader wants them: the same words as in the reports at the terminal.

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  let value = Math.abs(bytes), unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  const digits = unit === 0 || value >= 10 ? value.toFixed(0) : value.toFixed(1);
  return `${bytes < 0 ? "−" : ""}${digits} ${UNITS[unit]}`;
}

function rate(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  if (Math.abs(bytes) < 0.5) return "0";
  return `${bytes > 0 ? "+" : ""}${size(bytes)}/s`;
}

function whole(number) {
  return number === null || number === undefined ? "–" : number.toLocaleString("en");
}

function blocks(count) {
  return `${whole(count)} block${count === 1 ? "" : "s"}`;
}

function percent(share) {
  if (!isFinite(share)) return "–";
  const value = 100 * share;
  return `${value >= 10 || value === 0 ? value.toFixed(0) : value.toFixed(1)} %`;
}

// A time as its two largest units.
function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  const left = Math.round(seconds);
  const parts = [[Math.floor(left / 86400), "d"], [Math.floor(left / 3600) % 24, "h"],
    [Math.floor(left / 60) % 60, "min"], [left % 60, "s"]];
  const first = parts.findIndex(([value]) => value > 0);
  return parts.slice(first, first + 2).filter(([value]) => value > 0).map(([value, unit]) => `${value} ${unit}`).join(" ");
}

// A function's name without its arguments and without what is in angle brackets where that is long.
function shortName(name) {
  if (name.length > 1000) return `${name.slice(0, 80)}…`;
  let short = name.replace(/(.)(?<!operator)\((?:[^()]|\([^()]*\))*\)( const)?( \[[^\]]*\])?$/, "$1");
  for (let before = ""; short.length > 56 && short !== before;) {
    before = short;
    short = short.replace(/<((?:[^<>]|<…>)+)>/g, (all, inside) => (inside === "…" ? all : "<…>"));
  }
  return short;
}

function baseName(path) {
  return path === null ? "" : path.slice(path.lastIndexOf("/") + 1);
}

// Steps of 1, 2 or 5 at which an axis up to highest has about so many lines; of bytes in their unit.
function axisStep(highest, lines, ofBytes) {
  let unit = 1;
  if (ofBytes) while (highest / unit >= 1000) unit *= 1024;
  const raw = Math.max(highest / unit / lines, 1e-9);
  const power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = [1, 2, 5, 10].find((each) => each * power >= raw) * power;
  return Math.max(step, unit === 1 ? 1 : step) * unit;
}

const TIME_STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200];

function timeStep(span, lines) {
  return TIME_STEPS.find((step) => span / step <= lines) || Math.ceil(span / lines / 86400) * 86400;
}
