// symbols_buffers: memory that Node gets from the allocator for JavaScript. Answer: one block of 3000007 bytes for the
// buffer that keepBuffer(), called by serveRequest(), makes.
"use strict";
const fs = require("fs");

const kept = [];
const line = Buffer.alloc(64);

function keepBuffer(size) { /* line: keepBuffer */
    kept.push(Buffer.allocUnsafeSlow(size));
}

function serveRequest() { /* line: serveRequest */
    keepBuffer(3000007);
}

fs.writeSync(1, "ready\n");
fs.readSync(0, line);
serveRequest();
fs.writeSync(1, "end\n");
fs.readSync(0, line);
