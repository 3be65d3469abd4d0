// What the page asks for, computed here: the model is in the page itself, and nothing is sent anywhere.

import { Model, Sequence } from "./model.js";
import { choose, mostLikely, randomNumbers } from "./sampling.js";
import { Tokenizer, WholeCharacters, normalize } from "./tokenizer.js";

const SLICE_MS = 30; // after so long the browser gets a turn, to draw and to listen

// An error whose message is the name of a word.
const problem = (name, fields) => Object.assign(new Error(name), { fields });

const embedded = (name) => document.getElementById(name).textContent;
const header = JSON.parse(embedded("model-header"));

export const storageName = `mamegpt.${header.name}`;

export const loadWords = async () => JSON.parse(embedded("words"));

export const pageOf = null; // this is the page

export const listModels = async () => [{ id: header.name, step: null, bits_per_character: null, answers: header.chat !== null }];

const tokenizer = new Tokenizer(header.tokenizer);
let model; // set by `load`

// Make the model, when it is first needed, of the weights in the page: base64 of gzip.
export async function load() {
  if (model) return;
  const characters = atob(embedded("model-weights"));
  const packed = new Uint8Array(characters.length);
  for (let i = 0; i < packed.length; i++) packed[i] = characters.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  model = new Model(header, new Uint8Array(await new Response(stream).arrayBuffer()));
}

// The token ids that a model reads for a prompt, as mamegpt.generation.stream.prompt_ids returns them.
export function promptIds(prompt, atStart = header.hasStart) {
  const ids = tokenizer.encode(normalize(prompt));
  if (ids.length && !(atStart && tokenizer.eos !== null)) return ids;
  return [tokenizer.eos ?? tokenizer.unknown, ...ids];
}

// The token ids that a model reads before it answers, as mamegpt.tokenizer.chat.chat_ids returns them.
export function chatIds(messages) {
  const { begin, end } = header.chat;
  const turns = messages.flatMap(({ role, content }) => [begin[role], ...tokenizer.encode(normalize(content)), end]);
  return [tokenizer.eos, ...turns, begin.assistant];
}

// The newest messages that fit into the context together with an answer, as mamegpt.generation.stream.fitting has them:
// the oldest are left out in pairs, a question and its answer, but never a system turn.
export function fitting(messages, nMost) {
  const nAnswer = Math.min(nMost, Math.floor(model.contextLength / 2));
  const system = messages[0].role === "system" ? messages.slice(0, 1) : [];
  let rest = messages.slice(system.length);
  while (rest.length > 2 && chatIds([...system, ...rest]).length + nAnswer > model.contextLength) rest = rest.slice(2);
  return [...system, ...rest];
}

// Read tokens one by one; what it yields last is the sequence of all and the logits of the next.
export function* read(ids) {
  const sequence = new Sequence(model);
  for (const [i, id] of ids.entries()) yield [sequence, sequence.add(id, i === ids.length - 1)];
}

// Natural logarithms of probabilities, from logits.
function logProbabilities(logits) {
  const top = logits[mostLikely(logits)];
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - top), 0);
  return logits.map((logit) => logit - top - Math.log(sum));
}

// The indices of the n largest values, the largest first.
function largest(values, n) {
  const found = [];
  values.forEach((value, i) => {
    if (found.length === n && value <= values[found[n - 1]]) return;
    found.push(i);
    found.sort((a, b) => values[b] - values[a]);
    found.length = Math.min(n, found.length);
  });
  return found;
}

// The text that may be shown of new tokens: up to the first stop string, without what may become one.
class Continuation {
  constructor(stops) {
    Object.assign(this, { stops, held: "", isStopped: false });
  }

  add(text) {
    const all = this.held + text;
    const found = this.stops.map((stop) => ({ at: all.indexOf(stop), end: all.indexOf(stop) + stop.length }))
      .filter(({ at }) => at >= 0).sort((a, b) => a.end - b.end || a.at - b.at);
    if (found.length) {
      Object.assign(this, { isStopped: true, held: "" });
      return all.slice(0, found[0].at);
    }
    let nHeld = Math.max(0, ...this.stops.map((stop) => stop.length - 1));
    while (!this.stops.some((stop) => nHeld < stop.length && all.endsWith(stop.slice(0, nHeld))) && nHeld) nHeld--;
    this.held = all.slice(all.length - nHeld);
    return all.slice(0, all.length - nHeld);
  }
}

// Write one text. Each step of the generator is at most one of the model; it yields a choice as in the playground's
// API, with the token's id, or null. When the context is full, the last half of the text is read again, and the text continues from there.
function* writing(request, index, ids, sequence, logits) {
  const random = randomNumbers(request.seed + index);
  const ends = [tokenizer.eos, request.messages ? header.chat.end : null];
  const characters = new WholeCharacters(tokenizer);
  const decode = tokenizer.decoder();
  for (const id of ids) {
    characters.add(id);
    decode(id);
  }
  const seen = [...ids];
  const text = new Continuation(request.stop ?? []);
  let offset = 0; // Unicode characters before the token
  let finish = "length";
  let end = null; // the token that ended the text
  for (let n = 0; n < request.max_tokens; n++) {
    if (n > 0 && sequence.isFull) {
      for ([sequence, logits] of read(seen.slice(-Math.ceil(model.contextLength / 2)))) yield null;
    } else if (n > 0) logits = sequence.add(seen.at(-1));
    const scores = logProbabilities(logits);
    characters.mask(logits);
    const id = choose(logits, seen, request, random);
    if (ends.includes(id)) {
      finish = "stop";
      end = id;
      break;
    }
    const fresh = decode(id);
    const logprobs = {
      tokens: [tokenizer.shown(id)],
      token_logprobs: [scores[id]],
      top_logprobs: [Object.fromEntries(largest(scores, request.logprobs).map((i) => [tokenizer.shown(i), scores[i]]))],
      text_offset: [offset],
    };
    yield { index, id, text: text.add(fresh), logprobs, finish_reason: null };
    if (text.isStopped) {
      finish = "stop";
      break;
    }
    offset += [...fresh].length;
    characters.add(id);
    seen.push(id);
  }
  yield { index, id: end, text: text.held, logprobs: null, finish_reason: finish };
}

// Write the texts of a request, all at the same time. What is new goes to `onData` whenever the browser gets a turn.
export async function complete(request, signal, onData) {
  let choices = [];
  let turnEnds = 0;
  const turn = async () => {
    if (performance.now() < turnEnds) return;
    onData({ choices });
    choices = [];
    await new Promise((resolve) => setTimeout(resolve));
    signal.throwIfAborted();
    turnEnds = performance.now() + SLICE_MS;
  };
  await turn();
  await load();
  const ids = request.messages
    ? chatIds(fitting(request.messages, request.max_tokens))
    : promptIds(request.prompt, request.at_start);
  if (request.messages && ids.length > model.contextLength) {
    throw problem("long-question", { n: ids.length, most: model.contextLength });
  }
  let begun;
  for (begun of read(ids.slice(-model.contextLength))) await turn();
  const [sequence, logits] = begun;
  let texts = Array.from({ length: request.n }, (_, i) => writing(request, i, ids, sequence.copy(), logits.slice()));
  while (texts.length) {
    const steps = texts.map((text) => text.next());
    texts = texts.filter((_, i) => !steps[i].done);
    choices.push(...steps.map(({ value }) => value).filter(Boolean));
    await turn();
  }
  onData({ choices });
}
