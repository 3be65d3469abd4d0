// The models that mamegpt trains, one new token at a time, in float32. Names of tensors are those of mamegpt's own
// checkpoints. Letters in comments: C embedding width, H heads, K heads of keys and values, D width of a head, F
// feed-forward width, V vocabulary size, S tokens so far.

import { Floats, loadTensors } from "./tensors.js";

function addTo(x, y) {
  for (let i = 0; i < x.length; i++) x[i] += y[i];
}

// RMSNorm of Zhang and Sennrich 2019, eq. 4.
function rmsNorm(x, weight, eps, out) {
  let sum = 0;
  for (const value of x) sum += value * value;
  const scale = 1 / Math.sqrt(sum / x.length + eps);
  for (let i = 0; i < x.length; i++) out[i] = x[i] * scale * weight[i];
}

// LayerNorm of Ba, Kiros and Hinton 2016, eq. 4.
function layerNorm(x, weight, bias, eps, out) {
  let [mean, variance] = [0, 0];
  for (const value of x) mean += value / x.length;
  for (const value of x) variance += (value - mean) ** 2 / x.length;
  const scale = 1 / Math.sqrt(variance + eps);
  for (let i = 0; i < x.length; i++) out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

// Attention of one query (H D) over the keys and values (S, K D) of all tokens (Vaswani et al. 2017, eq. 1).
function attend(query, keys, values, nTokens, headDim, out) {
  const kvWidth = keys.length / nTokens;
  const scores = new Float32Array(nTokens);
  out.fill(0);
  for (let q = 0; q < query.length; q += headDim) {
    const kv = Math.floor(((q / query.length) * kvWidth) / headDim) * headDim; // several heads share those of one
    let top = -Infinity;
    for (let t = 0; t < nTokens; t++) {
      let score = 0;
      for (let i = 0, k = t * kvWidth + kv; i < headDim; i++, k++) score += query[q + i] * keys[k];
      scores[t] = score / Math.sqrt(headDim);
      top = Math.max(top, scores[t]);
    }
    let sum = 0;
    for (let t = 0; t < nTokens; t++) sum += scores[t] = Math.exp(scores[t] - top);
    for (let t = 0; t < nTokens; t++) {
      const share = scores[t] / sum;
      for (let i = 0, v = t * kvWidth + kv; i < headDim; i++, v++) out[q + i] += share * values[v];
    }
  }
}

// Rotate each pair (x_i, x_{i + D/2}) of every head (Su et al. 2021, eq. 34).
function rotate(x, cosines, sines) {
  const half = cosines.length;
  for (let h = 0; h < x.length; h += 2 * half) {
    for (let i = 0; i < half; i++) {
      const [a, b] = [x[h + i], x[h + half + i]];
      x[h + i] = a * cosines[i] - b * sines[i];
      x[h + half + i] = b * cosines[i] + a * sines[i];
    }
  }
}

// Qwen3, and Llama, which has no norms of queries and keys: RMSNorm, RoPE, grouped heads, SwiGLU, no biases.
class Rotary {
  constructor({ n_heads, norm_eps, rope_theta }, tensors, floats) {
    Object.assign(this, { eps: norm_eps, tensors, multiply: floats.multiply });
    this.embedding = tensors["model.embed_tokens.weight"];
    this.head = tensors["lm_head.weight"] ?? this.embedding;
    const queries = this.part(0, "self_attn.q_proj").rows;
    this.headDim = queries / n_heads;
    this.kvWidth = this.part(0, "self_attn.k_proj").rows;
    this.query = floats.vector(queries);
    this.mixed = floats.vector(queries);
    this.gate = floats.vector(this.part(0, "mlp.gate_proj").rows);
    this.up = floats.vector(this.gate.length);
    this.frequencies = Float32Array.from({ length: this.headDim / 2 }, (_, i) =>
      1 / Math.fround(rope_theta ** Math.fround((2 * i) / this.headDim)));
    this.cosines = new Float32Array(this.headDim / 2);
    this.sines = new Float32Array(this.headDim / 2);
  }

  part(layer, name) {
    return this.tensors[`model.layers.${layer}.${name}.weight`];
  }

  begin(id, position, x) {
    x.set(row(this.embedding, id));
    this.frequencies.forEach((frequency, i) => {
      const angle = Math.fround(position * frequency);
      this.cosines[i] = Math.cos(angle);
      this.sines[i] = Math.sin(angle);
    });
  }

  queries(layer, x, key, value) {
    this.multiply(this.part(layer, "self_attn.q_proj"), x, this.query);
    this.multiply(this.part(layer, "self_attn.k_proj"), x, key);
    this.multiply(this.part(layer, "self_attn.v_proj"), x, value);
    for (const [name, vector] of [["q_norm", this.query], ["k_norm", key]]) {
      const weight = this.part(layer, `self_attn.${name}`);
      for (let at = 0; weight && at < vector.length; at += this.headDim) {
        const head = vector.subarray(at, at + this.headDim);
        rmsNorm(head, weight, this.eps, head);
      }
      rotate(vector, this.cosines, this.sines);
    }
  }

  attentionNorm(layer, x, out) {
    rmsNorm(x, this.part(layer, "input_layernorm"), this.eps, out);
  }

  attentionOutput(layer, out) {
    this.multiply(this.part(layer, "self_attn.o_proj"), this.mixed, out);
  }

  feedForward(layer, x, out) {
    rmsNorm(x, this.part(layer, "post_attention_layernorm"), this.eps, out);
    this.multiply(this.part(layer, "mlp.gate_proj"), out, this.gate);
    this.multiply(this.part(layer, "mlp.up_proj"), out, this.up);
    for (let i = 0; i < this.up.length; i++) this.up[i] *= this.gate[i] / (1 + Math.exp(-this.gate[i]));
    this.multiply(this.part(layer, "mlp.down_proj"), this.up, out);
  }

  finalNorm(x, out) {
    rmsNorm(x, this.tensors["model.norm.weight"], this.eps, out);
  }
}

// The book's GPT: learned positions, LayerNorm, one matrix for queries, keys and values, GELU (tanh).
class CustomGPT {
  constructor({ n_heads, emb_dim }, tensors, floats) {
    Object.assign(this, { headDim: emb_dim / n_heads, kvWidth: emb_dim, tensors, multiply: floats.multiply });
    this.embedding = tensors["tok_emb.weight"];
    this.head = tensors["out_head.weight"];
    this.qkv = floats.vector(3 * emb_dim);
    this.query = this.qkv.subarray(0, emb_dim);
    this.mixed = floats.vector(emb_dim);
    this.up = floats.vector(4 * emb_dim);
  }

  linear(layer, name, x, out) {
    this.multiply(this.tensors[`trf_blocks.${layer}.${name}.weight`], x, out);
    const bias = this.tensors[`trf_blocks.${layer}.${name}.bias`];
    if (bias) addTo(out, bias);
  }

  norm(name, x, out) {
    layerNorm(x, this.tensors[`${name}.weight`], this.tensors[`${name}.bias`], 1e-5, out);
  }

  begin(id, position, x) {
    x.set(row(this.embedding, id));
    addTo(x, row(this.tensors["pos_emb.weight"], position));
  }

  queries(layer, x, key, value) {
    this.linear(layer, "att.qkv", x, this.qkv);
    key.set(this.qkv.subarray(key.length, 2 * key.length));
    value.set(this.qkv.subarray(2 * key.length));
  }

  attentionNorm(layer, x, out) {
    this.norm(`trf_blocks.${layer}.norm1`, x, out);
  }

  attentionOutput(layer, out) {
    this.linear(layer, "att.proj", this.mixed, out);
  }

  feedForward(layer, x, out) {
    this.norm(`trf_blocks.${layer}.norm2`, x, out);
    this.linear(layer, "ff.layers.0", out, this.up);
    for (let i = 0; i < this.up.length; i++) {
      const z = this.up[i];
      this.up[i] = 0.5 * z * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (z + 0.044715 * z ** 3)));
    }
    this.linear(layer, "ff.layers.2", this.up, out);
  }

  finalNorm(x, out) {
    this.norm("final_norm", x, out);
  }
}

const ARCHITECTURES = { qwen3: Rotary, llama: Rotary, "custom-gpt": CustomGPT };

function row({ values, cols, stride }, index) {
  return values.subarray(index * stride, index * stride + cols);
}

const N_VECTORS = 9; // of one step, those of the network included

// A model and room for one step; its texts are each a `Sequence`.
export class Model {
  constructor({ architecture, sizes, tensors }, bytes) {
    const { emb_dim, vocab_size, context_length, n_layers } = sizes;
    const room = tensors.reduce((sum, { shape }) => sum + Floats.size(shape), 0);
    const largest = Math.max(...tensors.flatMap(({ shape }) => shape));
    const floats = new Floats(room + N_VECTORS * Floats.size([largest]));
    this.network = new ARCHITECTURES[architecture](sizes, loadTensors(tensors, bytes, floats), floats);
    this.contextLength = context_length;
    this.nLayers = n_layers;
    this.state = floats.vector(emb_dim);
    this.inner = floats.vector(emb_dim);
    this.key = floats.vector(this.network.kvWidth);
    this.value = floats.vector(this.network.kvWidth);
    this.logits = floats.vector(vocab_size);
  }
}

// One text: the keys and values of its tokens, at most as many as the context holds.
export class Sequence {
  constructor(model) {
    this.model = model;
    this.length = 0;
    this.capacity = 0;
    this.layers = Array.from({ length: model.nLayers }, () => [new Float32Array(), new Float32Array()]);
  }

  get isFull() {
    return this.length === this.model.contextLength;
  }

  // Another text with the same tokens so far.
  copy() {
    const made = new Sequence(this.model);
    Object.assign(made, { length: this.length, capacity: this.capacity });
    made.layers = this.layers.map((pair) => pair.map((values) => values.slice()));
    return made;
  }

  // Add a token; returns the logits (V,) of the next. Without `withLogits` it returns nothing and takes less time.
  add(id, withLogits = true) {
    const { network, state, inner, key, value, logits } = this.model;
    const position = this.length++;
    if (position === this.capacity) this.grow();
    network.begin(id, position, state);
    this.layers.forEach(([keys, values], layer) => {
      network.attentionNorm(layer, state, inner);
      network.queries(layer, inner, key, value);
      keys.set(key, position * key.length);
      values.set(value, position * key.length);
      const seen = this.length * key.length;
      attend(network.query, keys.subarray(0, seen), values.subarray(0, seen), this.length, network.headDim, network.mixed);
      network.attentionOutput(layer, inner);
      addTo(state, inner);
      network.feedForward(layer, state, inner);
      addTo(state, inner);
    });
    if (!withLogits) return null;
    network.finalNorm(state, inner);
    network.multiply(network.head, inner, logits);
    return logits.slice();
  }

  grow() {
    this.capacity = Math.min(Math.max(64, 2 * this.capacity), this.model.contextLength);
    this.layers = this.layers.map((pair) => pair.map((values) => {
      const larger = new Float32Array(this.capacity * this.model.network.kvWidth);
      larger.set(values);
      return larger;
    }));
  }
}
