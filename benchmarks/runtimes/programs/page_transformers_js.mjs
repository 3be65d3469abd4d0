// transformers.js in a browser, as WebAssembly on one thread.
import * as library from "/modules/@huggingface/transformers/dist/transformers.js";
import { measure } from "./measure.mjs";
import { load } from "./transformers_js.mjs";

export async function answer(cases) {
  const { env } = library;
  Object.assign(env, { allowLocalModels: true, allowRemoteModels: false, localModelPath: "/models/", useBrowserCache: false });
  env.backends.onnx.wasm.wasmPaths = "/modules/onnxruntime-web/dist/";
  env.backends.onnx.wasm.numThreads = 1;
  return measure(cases, ...(await load(library, "onnx", { device: "wasm" })));
}
