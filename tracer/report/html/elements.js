// Elements are made here and nowhere else; text becomes a text node, so that no name is ever read as markup.

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, run] of Object.entries(value)) made.addEventListener(event, run);
    else if (name === "style") for (const [property, each] of Object.entries(value)) made.style.setProperty(property, each);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function section(title, attributes, ...children) {
  return el("section", { class: "panel", ...attributes }, title && el("h2", {}, title), ...children);
}

// Buttons of which one is pressed. options: [value, label]; change is called with the value.
function choice(label, options, chosen, change) {
  const buttons = options.map(([value, text]) => el("button", {
    type: "button", "aria-pressed": String(value === chosen), "data-value": value,
    on: { click: () => {
      for (const each of buttons) each.setAttribute("aria-pressed", String(each.dataset.value === String(value)));
      change(value);
    } },
  }, text));
  return el("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}

// A name as it can be broken: behind what separates its parts.
function breakable(name) {
  return name.split(/(?<=::|[,<(/])/).flatMap((part, index) => (index ? [el("wbr"), part] : [part]));
}

function badge(verdict, confidence) {
  if (!verdict) return null;
  const doubt = confidence && confidence !== "high" && verdict !== "undecided" ? ` (${confidence})` : "";
  return el("span", { class: `badge ${verdict}` }, verdict + doubt);
}
