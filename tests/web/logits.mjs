// Print the logits that onnxruntime-web (WebAssembly, one thread) gives for a model, how long the
// session took to open, and the peak memory of the process, as JSON.
//
//     node logits.mjs NODE_MODULES MODEL.onnx INPUTS.json
//
// INPUTS.json: input name -> rows of integers, all of one length.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [modules, model, inputs] = process.argv.slice(2);
// The package lies outside of the sources, where an import would not look.
const ort = createRequire(resolve(modules, "package.json"))("onnxruntime-web");
ort.env.wasm.numThreads = 1;

const start = performance.now();
const session = await ort.InferenceSession.create(readFileSync(model));
const loadMs = performance.now() - start;

const feeds = {};
for (const [name, rows] of Object.entries(JSON.parse(readFileSync(inputs, "utf-8")))) {
  const values = BigInt64Array.from(rows.flat(), BigInt);
  feeds[name] = new ort.Tensor("int64", values, [rows.length, rows[0].length]);
}
const { logits } = await session.run(feeds);
console.log(
  JSON.stringify({
    version: ort.env.versions.web,
    dims: logits.dims,
    logits: Array.from(logits.data),
    load_ms: loadMs,
    peak_kib: process.resourceUsage().maxRSS,
  }),
);
