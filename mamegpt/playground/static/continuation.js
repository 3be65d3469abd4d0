// Continuations of a prompt: several texts, of one model or of two.

import { showCode } from "./code.js";
import { $, button, element } from "./common.js";
import { generate } from "./generate.js";
import { remember } from "./history.js";
import { sampling, settings } from "./settings.js";
import { Sheet } from "./sheet.js";

export const PROMPTS = ["【ふしぎな手紙】", "ある春の朝、", "月見町は、", "日本の"];

function requests() {
  const shared = { prompt: $("prompt").value, n: Number($("n").value), ...sampling() };
  if (!$("at_start").checked) shared.at_start = false; // else as the model was trained
  return [$("model").value, $("other").value].filter(Boolean).map((model) => ({ model, ...shared }));
}

// The text number `index` of a request.
function newSheet(request, index) {
  const sheet = new Sheet({ ...request, seed: request.seed + index, n: 1 }, request.prompt);
  sheet.buttons.prepend(button("go-on", () => {
    $("prompt").value = request.prompt + sheet.text;
    write();
  }));
  sheet.buttons.append(button("as-code", () => showCode(sheet.request), { className: "server" }));
  return sheet;
}

export async function write() {
  const asked = requests();
  const groups = asked.map((request) => Array.from({ length: request.n }, (_, i) => newSheet(request, i)));
  showSheets(asked.map(({ model }) => model), groups);
  if ($("sheets").getBoundingClientRect().top > innerHeight / 2) $("status").scrollIntoView(); // a phone
  const result = await generate(asked, groups);
  if (!result?.length) return;
  const texts = groups.flat().map(({ request, text }) => ({ request, text }));
  remember({ when: Date.now(), prompt: asked[0].prompt, settings: settings(), texts });
}

// The texts of one model, or of two in turns: texts of the same seed stand next to each other.
function showSheets(models, groups) {
  const heading = (model) => element("h2", { textContent: model });
  if (models.length === 1) {
    const sheets = element("div", { className: "sheets" }, ...groups[0].map((sheet) => sheet.root));
    $("sheets").replaceChildren(element("section", {}, heading(models[0]), sheets));
    return;
  }
  for (const [i, sheets] of groups.entries()) for (const sheet of sheets) sheet.root.prepend(heading(models[i]));
  const turns = groups[0].flatMap((_, i) => groups.map((sheets) => sheets[i]?.root)).filter(Boolean);
  $("sheets").replaceChildren(element("section", { className: "sheets pairs" }, ...turns));
}

// Show texts of the history.
export function recallTexts(entry) {
  $("prompt").value = entry.prompt;
  const names = [...new Set(entry.texts.map(({ request }) => request.model))];
  showSheets(names, names.map((model) => entry.texts
    .filter(({ request }) => request.model === model)
    .map(({ request, text }) => newSheet(request, 0).recall(text))));
}
