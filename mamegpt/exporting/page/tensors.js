// Weights as the file holds them, and vectors and matrices in float32: everything is a view of one buffer.

import { multiplyPlainly, wasmMultiply } from "./kernel.js";

const ALIGN = 16; // floats; rows of matrices and all vectors end at a multiple of it, filled with zeros

const padded = (n) => Math.ceil(n / ALIGN) * ALIGN;

// float32 of each of the 65,536 numbers in float16 (IEEE 754-2019, section 3.4).
function float16Table() {
  return Float32Array.from({ length: 1 << 16 }, (_, bits) => {
    const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return exponent ? sign * (1 + fraction / 1024) * 2 ** (exponent - 15) : sign * fraction * 2 ** -24;
  });
}

// The numbers of one tensor, read from the bytes of all: `type` is f32, f16, or q8_0 (the float16 scale of each 32
// numbers, then all numbers as signed bytes).
function readTensor({ type, offset, shape }, bytes, float16) {
  const n = shape.reduce((a, b) => a * b);
  const at = bytes.byteOffset + offset;
  if (type === "f32") return new Float32Array(bytes.buffer, at, n);
  const values = new Float32Array(n);
  if (type === "f16") {
    const bits = new Uint16Array(bytes.buffer, at, n);
    for (let i = 0; i < n; i++) values[i] = float16[bits[i]];
  } else {
    const scales = new Uint16Array(bytes.buffer, at, n / 32);
    const numbers = new Int8Array(bytes.buffer, at + n / 16, n);
    for (let i = 0; i < n; i++) values[i] = numbers[i] * float16[scales[i >> 5]];
  }
  return values;
}

// Hands out vectors and matrices of one buffer, which are multiplied in WebAssembly unless the browser has none (iPhones
// in lockdown mode).
export class Floats {
  constructor(n) {
    this.used = 0;
    if (typeof WebAssembly === "undefined") {
      this.buffer = new ArrayBuffer(4 * n);
      this.multiply = multiplyPlainly;
    } else {
      const memory = new WebAssembly.Memory({ initial: Math.ceil((4 * n) / 65536) });
      this.buffer = memory.buffer;
      this.multiply = wasmMultiply(memory);
    }
  }

  static size(shape) { // floats that a tensor of this shape takes
    return shape.slice(0, -1).reduce((a, b) => a * b, 1) * padded(shape.at(-1));
  }

  vector(n) {
    const made = new Float32Array(this.buffer, 4 * this.used, n);
    this.used += padded(n);
    return made;
  }

  matrix(rows, cols) {
    return { rows, cols, values: this.vector(rows * padded(cols)), stride: padded(cols) };
  }
}

// All tensors by name: vectors as Float32Array, matrices as `Floats.matrix` makes them.
export function loadTensors(listed, bytes, floats) {
  const float16 = float16Table();
  return Object.fromEntries(listed.map((one) => {
    const values = readTensor(one, bytes, float16);
    if (one.shape.length === 1) {
      const vector = floats.vector(values.length);
      vector.set(values);
      return [one.name, vector];
    }
    const [rows, cols] = one.shape;
    const matrix = floats.matrix(rows, cols);
    for (let r = 0; r < rows; r++) matrix.values.set(values.subarray(r * cols, (r + 1) * cols), r * matrix.stride);
    return [one.name, matrix];
  }));
}
