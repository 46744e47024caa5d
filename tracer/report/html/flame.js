// Draws the tree on a canvas, the root on top; what is narrower than half a pixel is left out.

const ROW = 21;

function nodeName(tree, node) {
  if (node < 0) return "smaller calls: give their caller the whole width to see them";
  return node ? frameName(tree.frame[node]) : "all";
}

// The nodes from one to the root, the root first.
function lineage(tree, node) {
  const line = [];
  for (let at = node; at >= 0; at = tree.parent[at]) line.unshift(at);
  return line;
}

// The boxes that are seen when a node has the whole width: {node, x, width, row}. Calls too narrow to be seen are one
// box without a node, so that there is no hole where they are.
function flameBoxes(tree, zoomed, width) {
  const line = lineage(tree, zoomed);
  const boxes = line.map((node, row) => ({ node, x: 0, width, row }));
  if (!tree.total[zoomed]) return boxes;
  const waiting = [boxes[boxes.length - 1]], scale = width / tree.total[zoomed];
  while (waiting.length) {
    const box = waiting.pop();
    const end = box.x + (tree.total[box.node] - tree.own[box.node]) * scale;
    let x = box.x;
    for (const node of tree.children[box.node] || []) {
      const wide = tree.total[node] * scale;
      if (wide < 0.5) {
        if (end - x >= 0.5) boxes.push({ node: -1, x, width: end - x, row: box.row + 1 });
        break;
      }
      const made = { node, x, width: wide, row: box.row + 1 };
      boxes.push(made);
      waiting.push(made);
      x += wide;
    }
  }
  return boxes;
}

function flameColours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return { own: [of("flame-own-1"), of("flame-own-2"), of("flame-own-3")], library: [of("flame-lib-1"), of("flame-lib-2"), of("flame-lib-3")],
    all: of("flame-all"), hit: of("flame-hit"), ink: of("flame-ink"), hitInk: of("flame-hit-ink"), focus: of("focus"), page: of("panel") };
}

function boxColour(tree, node, matches, colours) {
  if (matches && matches[node]) return colours.hit;
  if (!node) return colours.all;
  const frame = tree.frame[node];
  const shades = R.frames.flags[frame] & LIBRARY ? colours.library : colours.own;
  return shades[R.frames.name[frame] % 3];
}

function drawFlame(canvas, tree, boxes, { zoomed, chosen, matches, width }) {
  const rows = boxes.reduce((most, box) => Math.max(most, box.row), 0) + 1;
  const sharp = Math.min(window.devicePixelRatio || 1, 3);
  canvas.width = Math.round(width * sharp);
  canvas.height = Math.round(rows * ROW * sharp);
  canvas.style.height = `${rows * ROW}px`;
  const ink = canvas.getContext("2d"), colours = flameColours();
  ink.scale(sharp, sharp);
  ink.font = "12px system-ui, sans-serif";
  ink.textBaseline = "middle";
  const above = tree.depth[zoomed];
  for (const { node, x, width: wide, row } of boxes) {
    if (node < 0) {
      ink.globalAlpha = 0.5;
      ink.fillStyle = colours.all;
      ink.fillRect(x, row * ROW, wide, 4);
      continue;
    }
    ink.globalAlpha = row < above ? 0.55 : matches && !matches[node] ? 0.45 : 1;
    ink.fillStyle = boxColour(tree, node, matches, colours);
    ink.fillRect(x, row * ROW, Math.max(wide - (wide > 3 ? 1 : 0), 0.5), ROW - 1);
    if (wide > 28) {
      ink.globalAlpha = row < above ? 0.8 : 1;
      ink.fillStyle = matches && matches[node] ? colours.hitInk : colours.ink;
      ink.fillText(fitted(ink, nodeName(tree, node), wide - 9), x + 4, row * ROW + ROW / 2);
    }
  }
  ink.globalAlpha = 1;
  const box = boxes.find((each) => each.node === chosen);
  if (box && document.activeElement === canvas) {
    ink.strokeStyle = colours.focus;
    ink.lineWidth = 2.5;
    ink.strokeRect(box.x + 1.25, box.row * ROW + 1.25, Math.max(box.width - 3.5, 1), ROW - 3.5);
  }
}

// A name with its middle cut out where it is too wide: C++ names differ at both ends.
function fitted(ink, name, wide) {
  if (ink.measureText(name).width <= wide) return name;
  let most = Math.min(name.length - 1, Math.floor(wide / 4));
  for (; most > 1; most--) {
    const front = Math.ceil(most * 0.6);
    const short = `${name.slice(0, front)}…${name.slice(name.length - (most - front))}`;
    if (ink.measureText(short).width <= wide) return short;
  }
  return "";
}
