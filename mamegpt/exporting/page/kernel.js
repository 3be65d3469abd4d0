// The product of a matrix and a vector, twice: in JavaScript, and in WebAssembly, which adds sixteen numbers at a time.
// The WebAssembly module is assembled here, instruction by instruction (WebAssembly Core Specification 2.0, section 5).

// y = W x. Four sums at a time, which processors add side by side.
export function multiplyPlainly({ rows, cols, values, stride }, x, y) {
  const whole = cols - (cols % 4);
  for (let r = 0; r < rows; r++) {
    const at = r * stride;
    let [a, b, c, d] = [0, 0, 0, 0];
    for (let i = 0, w = at; i < whole; i += 4, w += 4) {
      a += values[w] * x[i];
      b += values[w + 1] * x[i + 1];
      c += values[w + 2] * x[i + 2];
      d += values[w + 3] * x[i + 3];
    }
    for (let i = whole; i < cols; i++) a += values[at + i] * x[i];
    y[r] = a + b + c + d;
  }
}

// The same function for matrices and vectors in a WebAssembly memory, whose rows and ends are filled up to 16 numbers.
export function wasmMultiply(memory) {
  const module = new WebAssembly.Module(assemble());
  const { multiply } = new WebAssembly.Instance(module, { page: { memory } }).exports;
  return ({ rows, values, stride }, x, y) => multiply(values.byteOffset, x.byteOffset, y.byteOffset, rows, 4 * stride);
}

// Whole numbers from 0 in LEB128, seven bits a byte. In the signed form the seventh bit of the last byte is the sign.
function leb128(n, end = 128) {
  return n < end ? [n] : [(n & 127) | 128, ...leb128(n >>> 7, end)];
}

const signedLeb128 = (n) => leb128(n, 64);

const I32 = 0x7f;
const V128 = 0x7b;

const op = {
  get: (local) => [0x20, local],
  set: (local) => [0x21, local],
  number: (n) => [0x41, ...signedLeb128(n)],
  add: [0x6a],
  subtract: [0x6b],
  isZero: [0x45],
  isBelow: [0x49], // unsigned
  block: [0x02, 0x40],
  loop: [0x03, 0x40],
  end: [0x0b],
  branch: (depth) => [0x0c, depth],
  branchIf: (depth) => [0x0d, depth],
  load: (offset) => [0xfd, 0x00, 4, ...leb128(offset)], // four float32 whose address is a multiple of 2^4
  zeros: [0xfd, 0x0c, ...Array(16).fill(0)],
  addFour: [0xfd, ...leb128(0xe4)],
  multiplyFour: [0xfd, ...leb128(0xe6)],
  lane: (n) => [0xfd, 0x1f, n],
  addFloats: [0x92],
  storeFloat: [0x38, 2, 0],
};

function assemble() {
  const [W, X, Y, ROWS, ROW_BYTES, X_END, AT] = [0, 1, 2, 3, 4, 5, 6]; // addresses in bytes; AT runs over x
  const SUMS = [7, 8, 9, 10];
  const STEP = [...op.number(16 * SUMS.length), ...op.add];
  const code = [
    ...op.get(X), ...op.get(ROW_BYTES), ...op.add, ...op.set(X_END),
    ...op.block,
    ...op.loop, // over rows
    ...op.get(ROWS), ...op.isZero, ...op.branchIf(1),
    ...SUMS.flatMap((sum) => [...op.zeros, ...op.set(sum)]),
    ...op.get(X), ...op.set(AT),
    ...op.loop, // over the columns, sixteen at a time
    ...SUMS.flatMap((sum, i) => [
      ...op.get(sum), ...op.get(W), ...op.load(16 * i), ...op.get(AT), ...op.load(16 * i),
      ...op.multiplyFour, ...op.addFour, ...op.set(sum),
    ]),
    ...op.get(W), ...STEP, ...op.set(W),
    ...op.get(AT), ...STEP, ...op.set(AT),
    ...op.get(AT), ...op.get(X_END), ...op.isBelow, ...op.branchIf(0),
    ...op.end,
    ...op.get(SUMS[0]), ...SUMS.slice(1).flatMap((sum) => [...op.get(sum), ...op.addFour]), ...op.set(SUMS[0]),
    ...op.get(Y),
    ...op.get(SUMS[0]), ...op.lane(0),
    ...[1, 2, 3].flatMap((n) => [...op.get(SUMS[0]), ...op.lane(n), ...op.addFloats]),
    ...op.storeFloat,
    ...op.get(Y), ...op.number(4), ...op.add, ...op.set(Y),
    ...op.get(ROWS), ...op.number(1), ...op.subtract, ...op.set(ROWS),
    ...op.branch(0),
    ...op.end,
    ...op.end,
    ...op.end,
  ];
  const list = (items) => [...leb128(items.length), ...items.flat()];
  const text = (characters) => list([...new TextEncoder().encode(characters)]);
  const section = (id, items) => [id, ...list(list(items))];
  const locals = list([[2, I32], [SUMS.length, V128]]);
  return Uint8Array.from([
    ...new TextEncoder().encode("\0asm"), 1, 0, 0, 0,
    ...section(1, [[0x60, ...list(Array(5).fill(I32)), 0]]), // one type: five numbers, no result
    ...section(2, [[...text("page"), ...text("memory"), 0x02, 0, 1]]), // the memory, at least one page
    ...section(3, [[0]]),
    ...section(7, [[...text("multiply"), 0x00, 0]]),
    ...section(10, [list([...locals, ...code])]),
  ]);
}
