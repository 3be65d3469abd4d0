// transformers.js in node, with ONNX Runtime's own code on one thread.
import * as library from "@huggingface/transformers";
import { basename, dirname } from "node:path";
import { run } from "./measure.mjs";
import { load } from "./transformers_js.mjs";

const session_options = { intraOpNumThreads: 1, interOpNumThreads: 1 };
run("onnx", (folder) => {
  library.env.localModelPath = dirname(folder);
  library.env.allowRemoteModels = false;
  return load(library, basename(folder), { session_options });
});
