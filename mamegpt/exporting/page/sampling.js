// From logits to the next token, as mamegpt.generation.samplers does it.

const NEGLIGIBLE = 25; // a logit so far below the best has e^-25 of its probability, nothing in float32

// Keskar et al. 2019 ("CTRL"), section 4.1, with the sign as transformers has it.
export function penalizeRepetition(logits, seen, penalty) {
  for (const id of new Set(seen)) logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
}

// The index of the largest value, the first of equals.
export function mostLikely(logits) {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id] > logits[best]) best = id;
  return best;
}

// The tokens to sample from and their shares, [id, share], the largest first; shares do not add up to 1.
export function candidates(logits, { temperature, top_k, top_p, min_p }) {
  const best = logits[mostLikely(logits)];
  const found = [];
  logits.forEach((logit, id) => {
    const exponent = (logit - best) / temperature;
    if (exponent > -NEGLIGIBLE) found.push([id, Math.exp(exponent)]);
  });
  found.sort(([, a], [, b]) => b - a);
  if (top_k && top_k < found.length) { // Fan et al. 2018
    const least = found[top_k - 1][1];
    found.length = found.findLastIndex(([, share]) => share >= least) + 1;
  }
  const total = found.reduce((sum, [, share]) => sum + share, 0);
  let before = 0; // Holtzman et al. 2020, eq. 2; Nguyen et al. 2024, eq. 2
  return found.filter(([, share], i) => {
    const isKept = i === 0 || top_p === 1 || before < top_p * total;
    before += share;
    return isKept && share >= min_p;
  });
}

// The next token. `random` returns a number from 0 up to 1.
export function choose(logits, seen, sampling, random) {
  if (sampling.repetition_penalty !== 1) penalizeRepetition(logits, seen, sampling.repetition_penalty);
  if (sampling.temperature === 0) return mostLikely(logits);
  const found = candidates(logits, sampling);
  let left = random() * found.reduce((sum, [, share]) => sum + share, 0);
  return (found.find(([, share]) => (left -= share) < 0) ?? found[0])[0];
}

// Random numbers from a seed: SplitMix32, the finalizer of MurmurHash3 over a counter.
export function randomNumbers(seed) {
  let state = (seed ^ Math.imul(Math.floor(seed / 2 ** 32), 0x9e3779b9)) >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32;
  };
}
