// Texts that are being generated: at most one request of each model at a time, whose progress the page shows.

import { complete } from "./backend.js";
import { $, number, say, sayNothing, showProblem } from "./common.js";
import { hideTip } from "./sheet.js";

const N_ALTERNATIVES = 5;

let running = null; // an AbortController while something is being generated

// End what is being generated; what is there stays.
export function stop() {
  running?.abort();
}

export const isGenerating = () => running !== null;

// Generate the texts of requests into their sheets, `groups[i]` for `requests[i]`. Returns their characters, and
// whether none was stopped or failed; nothing if other requests have come in between.
export async function generate(requests, groups) {
  stop();
  const mine = (running = new AbortController());
  hideTip();
  showProblem(null);
  $("stop").hidden = false;
  say($("status"), "preparing");
  const began = performance.now();
  const everything = groups.flat();
  const length = () => everything.reduce((sum, sheet) => sum + sheet.characters.length, 0);
  const seconds = () => (performance.now() - began) / 1000;

  const results = await Promise.allSettled(requests.map((request, i) => complete(
    { ...request, logprobs: N_ALTERNATIVES }, mine.signal,
    (data) => {
      for (const choice of data.choices) groups[i][choice.index].add(choice);
      say($("status"), "writing", { n: number(length() / seconds()) });
    },
    (place) => {
      if (!length()) say($("status"), "waiting", { place });
    },
  )));
  if (running !== mine) return null;
  running = null;
  for (const sheet of everything) sheet.finish("stopped");
  $("stop").hidden = true;
  if (length()) say($("status"), "done", { n: number(length()), elapsed_s: number(seconds(), 1) });
  else sayNothing($("status"));
  const failed = results.find(({ reason }) => reason && reason.name !== "AbortError");
  if (failed) showProblem(failed.reason);
  return { length: length(), isWhole: results.every(({ status }) => status === "fulfilled") };
}
