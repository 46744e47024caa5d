// Which view is seen is in the address, so that it can be gone back to and sent to others.

const VIEWS = { overview: ["Overview", overview], sites: ["Sites", sitesView], flame: ["Flame graph", flameView], trace: ["Trace", traceView] };
const THEMES = ["auto", "light", "dark"];
let current = null;

function route() {
  const [, name, key] = /^#?(site(?=-)|\w*)-?(.*)$/.exec(location.hash) || [];
  if (name === "site" && R.byKey.has(key)) return { name: "sites", view: () => siteView(R.byKey.get(key)) };
  if (name === "site") return { name: "sites", view: () => missing(key) };
  const chosen = name in VIEWS ? name : "overview";
  return { name: chosen, view: VIEWS[chosen][1] };
}

function missing(key) {
  return { title: "No such site", node: section("No such site", {}, el("p", {}, `This report has no site ${key}: it may hold nothing now, or be of another trace. `,
    el("a", { href: "#sites" }, "All sites"))) };
}

function show(event) {
  const { name, view } = route(), place = document.getElementById("view");
  current = view();
  place.replaceChildren(current.node);
  place.dataset.shown = location.hash.slice(1);
  for (const link of document.querySelectorAll("#views a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${current.title}: ${R.title} – leaktrace`;
  if (current.shown) current.shown();
  if (event) {
    window.scrollTo(0, 0);
    (current.focus || place).focus({ preventScroll: true });
  }
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = document.getElementById("theme");
  button.textContent = { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[theme];
  button.dataset.now = theme;
  if (current && current.redraw) current.redraw();
}

// A file has no memory of its own: it may not be allowed to keep anything.
function remembered(theme) {
  try {
    if (theme) localStorage.setItem("leaktrace-theme", theme);
    return localStorage.getItem("leaktrace-theme");
  } catch (problem) {
    return null;
  }
}

function bar() {
  document.getElementById("target").textContent = R.title;
  document.getElementById("target").title = R.title;
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("view").focus();
  });
  document.getElementById("views").append(...Object.entries(VIEWS).map(([name, [title]]) => el("a", { href: `#${name}`, "data-view": name }, title,
    name === "sites" && el("span", { class: "many" }, whole(R.count)),
    name === "trace" && !R.complete && el("span", { class: "many alarm", title: "Something is missing" }, "!"))));
  document.getElementById("theme").addEventListener("click", (event) => {
    const next = THEMES[(THEMES.indexOf(event.currentTarget.dataset.now) + 1) % THEMES.length];
    remembered(next);
    setTheme(next);
  });
}

function keys(event) {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && current.back && !event.defaultPrevented) location.hash = current.back;
  if (event.key === "/" && current.search) {
    event.preventDefault();
    current.search.focus();
    current.search.select();
  }
}

// Paper is white, and has no place to scroll.
function printing() {
  const theme = () => document.getElementById("theme").dataset.now;
  let before = "auto";
  window.addEventListener("beforeprint", () => {
    before = theme();
    setTheme("light");
    if (current.print) current.print();
  });
  window.addEventListener("afterprint", () => setTheme(before));
}

async function start() {
  try {
    await load();
  } catch (problem) {
    const old = typeof DecompressionStream === "undefined";
    document.getElementById("wait").textContent = old
      ? "This browser is too old to unpack the report: it needs Chrome 80, Firefox 113, Safari 16.4 or later." : `The report is damaged: ${problem}`;
    return;
  }
  bar();
  setTheme(THEMES.includes(remembered()) ? remembered() : "auto");
  show();
  window.addEventListener("hashchange", show);
  document.addEventListener("keydown", keys);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (current.redraw) current.redraw(); });
  printing();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

start();
