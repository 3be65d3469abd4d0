// SentencePiece's BPE: pairs of pieces are joined as long as the result is a piece, the best score first and the
// leftmost of equals; what is then no piece becomes bytes. Kudo and Richardson 2018; sentencepiece's bpe_model.cc.

const SPACE = "\u2581"; // stands for a space in pieces

const REPLACED = [["\0", ""], ["\r\n", "\n"], ["\r", "\n"], [SPACE, "_"]];

// The form of text that models are trained on, as mamegpt.text.normalize has it.
export function normalize(text) {
  for (const [old, replacement] of REPLACED) text = text.replaceAll(old, replacement);
  return text.replaceAll(/\p{Surrogate}/gu, "\ufffd").normalize("NFC");
}

export class Tokenizer {
  // `pieces` are [text, score, kind] by id, with one letter for a kind: normal, user-defined, byte, control, unknown.
  constructor({ pieces, eos, unknown, addDummyPrefix }) {
    Object.assign(this, { pieces, eos, unknown, addDummyPrefix });
    this.ids = new Map();
    this.symbols = []; // user-defined, the longest first
    this.byteIds = [];
    pieces.forEach(([text, , kind], id) => {
      if (kind === "b") this.byteIds[parseInt(text.slice(3, 5), 16)] = id;
      if (kind === "n" || kind === "u") this.ids.set(text, id);
      if (kind === "u") this.symbols.push(text);
    });
    this.symbols.sort((a, b) => b.length - a.length);
    this.bytes = new Map(this.byteIds.map((id, byte) => [id, byte]));
  }

  encode(text) {
    if (!text) return [];
    const merged = this.merge(this.split((this.addDummyPrefix ? SPACE : "") + text.replaceAll(" ", SPACE)));
    return merged.flatMap((part, i) => {
      const id = this.ids.get(part);
      if (id !== undefined) return [id];
      if (this.byteIds.length) return Array.from(new TextEncoder().encode(part), (byte) => this.byteIds[byte]);
      return i > 0 && !this.ids.has(merged[i - 1]) ? [] : [this.unknown]; // a run of them is one
    });
  }

  // User-defined symbols, which stay whole, and characters.
  split(text) {
    const parts = [];
    for (let at = 0; at < text.length; ) {
      const symbol = this.symbols.find((one) => text.startsWith(one, at));
      const part = symbol ?? String.fromCodePoint(text.codePointAt(at));
      parts.push({ text: part, isFixed: symbol !== undefined });
      at += part.length;
    }
    return parts;
  }

  merge(parts) {
    parts.forEach((part, i) => Object.assign(part, { place: i, before: parts[i - 1], after: parts[i + 1] }));
    const queue = new Queue();
    const offer = (left, right) => {
      if (!left || !right || left.isFixed || right.isFixed) return;
      const text = left.text + right.text;
      const id = this.ids.get(text);
      if (id !== undefined) queue.push({ score: this.pieces[id][1], place: left.place, left, right, text });
    };
    for (const part of parts) offer(part, part.after);
    for (let found = queue.pop(); found; found = queue.pop()) {
      const { left, right, text } = found;
      if (left.isGone || left.after !== right || left.text + right.text !== text) continue; // joined otherwise since
      left.text = text;
      left.after = right.after;
      if (right.after) right.after.before = left;
      right.isGone = true;
      offer(left.before, left);
      offer(left, left.after);
    }
    return parts.filter((part) => !part.isGone).map((part) => part.text);
  }

  // The text of a token that is no byte.
  text(id) {
    const [text, , kind] = this.pieces[id];
    return { c: "", x: " \u2047 " }[kind] ?? text.replaceAll(SPACE, " ");
  }

  // What a person sees of a token: its text, or its name if it has none.
  shown(id) {
    const byte = this.bytes.get(id);
    if (byte === undefined && this.ids.has(this.pieces[id][0])) return this.text(id);
    return byte < 128 ? String.fromCharCode(byte) : this.pieces[id][0];
  }

  // A function from id to the text that is complete with it.
  decoder() {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    let strips = this.addDummyPrefix; // at the start of the text
    return (id) => {
      const byte = this.bytes.get(id);
      const text = byte === undefined ? decoder.decode() + this.text(id) : decoder.decode(Uint8Array.of(byte), { stream: true });
      const isStripped = strips && byte === undefined && text.startsWith(" ");
      strips = strips && !text;
      return isStripped ? text.slice(1) : text;
    };
  }

  decode(ids) {
    return ids.map(this.decoder()).join("");
  }
}

// A heap: the best score, of equals the leftmost, comes first.
class Queue {
  constructor() {
    this.items = [];
  }

  static isBefore(a, b) {
    return a.score > b.score || (a.score === b.score && a.place < b.place);
  }

  swap(i, j) {
    [this.items[i], this.items[j]] = [this.items[j], this.items[i]];
  }

  push(item) {
    let i = this.items.push(item) - 1;
    for (let up; i > 0 && Queue.isBefore(item, this.items[(up = (i - 1) >> 1)]); i = up) this.swap(i, up);
  }

  pop() {
    this.swap(0, this.items.length - 1);
    const found = this.items.pop();
    for (let i = 0; ; ) {
      const below = [2 * i + 1, 2 * i + 2].filter((j) => j < this.items.length);
      const best = below.reduce((a, b) => (Queue.isBefore(this.items[b], this.items[a]) ? b : a), i);
      if (best === i) return found;
      this.swap(i, best);
      i = best;
    }
  }
}

// ---------------------------------------------------------------- whole characters

// The bytes of a character by its first: The Unicode Standard, section 3.9, table 3-7. Ranges are [first, last].
const TAIL = [0x80, 0xbf];
const SEQUENCES = [
  [[0x00, 0x7f]],
  [[0xc2, 0xdf], TAIL],
  [[0xe0, 0xe0], [0xa0, 0xbf], TAIL],
  [[0xe1, 0xec], TAIL, TAIL],
  [[0xed, 0xed], [0x80, 0x9f], TAIL],
  [[0xee, 0xef], TAIL, TAIL],
  [[0xf0, 0xf0], [0x90, 0xbf], TAIL, TAIL],
  [[0xf1, 0xf3], TAIL, TAIL, TAIL],
  [[0xf4, 0xf4], [0x80, 0x8f], TAIL, TAIL],
];

const isIn = (byte, [first, last]) => first <= byte && byte <= last;

// Which tokens may come next, so that byte tokens always make whole characters, as in mamegpt.generation.whole_characters:
// the ranges of bytes that the newest character still needs.
export class WholeCharacters {
  constructor(tokenizer) {
    this.bytes = tokenizer.bytes;
    this.missing = [];
  }

  add(id) {
    const byte = this.bytes.get(id);
    if (byte === undefined) this.missing = [];
    else if (this.missing.length && isIn(byte, this.missing[0])) this.missing = this.missing.slice(1);
    else this.missing = SEQUENCES.find(([first]) => isIn(byte, first))?.slice(1) ?? [];
  }

  // Set the logits of tokens that may not come to -Infinity.
  mask(logits) {
    if (this.missing.length) {
      for (let id = 0; id < logits.length; id++) {
        if (!this.bytes.has(id) || !isIn(this.bytes.get(id), this.missing[0])) logits[id] = -Infinity;
      }
    } else {
      for (const [id, byte] of this.bytes) {
        if (!SEQUENCES.some(([first]) => isIn(byte, first))) logits[id] = -Infinity;
      }
    }
  }
}
