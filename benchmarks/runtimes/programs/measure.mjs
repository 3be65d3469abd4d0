// What the programs for JavaScript runtimes share: as measure.py, in node and in a browser.

/** Continue each prompt twice (the second time timed) and tokenize the texts; null for what a runtime cannot do. */
export async function measure({ prompts, n_new, texts, normalized }, continued, encode) {
  const greedy = [];
  for (const ids of prompts) greedy.push(await continued(ids, n_new));
  const begin = performance.now();
  for (const ids of prompts) await continued(ids, n_new);
  const seconds = (performance.now() - begin) / 1e3;
  const text_ids = encode && [];
  if (encode) for (const [i, text] of texts.entries()) text_ids.push(Array.from(await encode(text, normalized[i]), Number));
  return { greedy, seconds, text_ids };
}

/** In node: read the cases, and write what `load` of a model gives. */
export async function run(format, load) {
  const { readFile, writeFile } = await import("node:fs/promises");
  const [casesFile, foundFile] = process.argv.slice(2);
  const cases = JSON.parse(await readFile(casesFile, "utf-8"));
  const [continued, encode] = await load(cases.models[format]);
  await writeFile(foundFile, JSON.stringify(await measure(cases, continued, encode)));
  process.exit(0);
}
