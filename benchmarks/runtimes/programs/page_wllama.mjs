// wllama, llama.cpp as WebAssembly in a browser: the GGUF file in float32. It takes and gives text, no token ids.
import { Wllama } from "/modules/@wllama/wllama/esm/index.js";
import { measure } from "./measure.mjs";

export async function answer(cases) {
  const wllama = new Wllama({ default: "/modules/@wllama/wllama/esm/wasm/wllama.wasm" }, { suppressNativeLog: true });
  const file = await (await fetch(cases.urls.gguf)).blob();
  const float32 = { cache_type_k: "f32", cache_type_v: "f32", flash_attn: false };
  await wllama.loadModel([file], { n_ctx: 256, n_threads: 1, ...float32 });
  const continued = async (prompt, max_tokens) => {
    const { choices } = await wllama.createCompletion({ prompt, max_tokens, temperature: 0 });
    return choices[0].text;
  };
  return measure({ ...cases, prompts: cases.prompt_texts }, continued, null);
}
