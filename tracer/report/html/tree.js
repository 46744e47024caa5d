// Stacks put together, either from the outermost calls inwards or from where they allocate outwards.

// Frames with the same name and file are one call, whichever lines they are at.
function frameKeys() {
  const keys = new Map();
  return R.frames.name.map((name, frame) => {
    const key = name * (R.texts.length + 1) + R.frames.module[frame] + 1;
    if (!keys.has(key)) keys.set(key, keys.size);
    return keys.get(key);
  });
}

// The shape, which is the same for all values. Node 0 is all; a node comes after its parent.
function treeShape(inverted) {
  const keys = frameKeys(), kinds = keys.reduce((most, key) => Math.max(most, key), 0) + 1;
  const children = new Map(), parent = [-1], frame = [-1], depth = [0];
  const below = (node, each) => {
    const key = node * kinds + keys[each];
    let found = children.get(key);
    if (found === undefined) {
      found = parent.length;
      children.set(key, found);
      parent.push(node);
      frame.push(each);
      depth.push(depth[node] + 1);
    }
    return found;
  };
  let leaf;
  if (inverted) {
    leaf = R.sites.stack.map((call) => framesOf(call).reduce(below, 0));
  } else {
    const nodes = new Int32Array(R.calls.frame.length);
    for (let call = 0; call < nodes.length; call++) {
      const caller = R.calls.caller[call];
      nodes[call] = below(caller < 0 ? 0 : nodes[caller], R.calls.frame[call]);
    }
    leaf = R.sites.stack.map((call) => (call < 0 ? 0 : nodes[call]));
  }
  return { parent, frame, depth, leaf };
}

// What each node holds. value: of a site; below 0 counts as nothing.
function treeValues(shape, value) {
  const count = shape.parent.length;
  const own = new Float64Array(count), total = new Float64Array(count), sites = new Int32Array(count);
  shape.leaf.forEach((node, site) => {
    own[node] += Math.max(0, value(site));
    sites[node] += 1;
  });
  for (let node = count - 1; node >= 0; node--) {
    total[node] += own[node];
    if (node) {
      total[shape.parent[node]] += total[node];
      sites[shape.parent[node]] += sites[node];
    }
  }
  const children = Array.from({ length: count }, () => null);
  for (let node = 1; node < count; node++) {
    if (total[node] > 0) (children[shape.parent[node]] ||= []).push(node);
  }
  for (const each of children) if (each) each.sort((one, other) => total[other] - total[one] || one - other);
  return { own, total, sites, children };
}
