// transformers.js, in node and in a browser: the folder of `onnx`.

/** Return `generate` in float32 and the folder's tokenizer; `library` is the module of transformers.js. */
export async function load({ AutoModelForCausalLM, AutoTokenizer, Tensor }, folder, options) {
  const [model, tokenizer] = await Promise.all(
    [AutoModelForCausalLM, AutoTokenizer].map((it) => it.from_pretrained(folder, { dtype: "fp32", ...options })),
  );
  const continued = async (ids, n_new) => {
    const row = (values) => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
    const inputs = { input_ids: row(ids), attention_mask: row(ids.map(() => 1)) };
    const whole = await model.generate({ ...inputs, max_new_tokens: n_new, do_sample: false, eos_token_id: -1 });
    return whole.tolist()[0].slice(ids.length).map(Number);
  };
  return [continued, (text) => tokenizer.encode(text, { add_special_tokens: false })];
}
