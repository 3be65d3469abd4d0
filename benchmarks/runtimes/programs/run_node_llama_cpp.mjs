// node-llama-cpp: the GGUF file in float32.
import { getLlama } from "node-llama-cpp";
import { run } from "./measure.mjs";

run("gguf", async (modelPath) => {
  const llama = await getLlama({ gpu: false, build: "never", maxThreads: 1 });
  const model = await llama.loadModel({ modelPath });
  const float32 = { experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32" };
  const context = await model.createContext({ contextSize: 256, threads: 1, flashAttention: false, ...float32 });
  const sequence = context.getSequence();
  const continued = async (ids, n_new) => {
    await sequence.clearHistory();
    const found = [];
    for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true }))
      if (found.push(token) === n_new) break;
    return found;
  };
  return [continued, (_, normalized) => model.tokenize(normalized, false)];
});
