// Continuations of a prompt: several texts, of one model or of two.

import { showCode } from "./code.js";
import { $, element, store, stored, word } from "./common.js";
import { generate, stop } from "./generate.js";
import { restoreSettings, sampling, settings } from "./settings.js";
import { Sheet } from "./sheet.js";

const EXAMPLES = ["【ふしぎな手紙】", "ある春の朝、", "月見町は、", "日本の"];
const MAX_HISTORY = 50;

export function keepDraft() {
  store("draft", $("prompt").value);
  $("examples").hidden = Boolean($("prompt").value || $("sheets").children.length);
}

export function showExamples() {
  $("examples").replaceChildren(...EXAMPLES.map((text) => {
    const button = element("button", { type: "button", textContent: text });
    button.onclick = () => {
      $("prompt").value = text;
      write();
    };
    return button;
  }));
  keepDraft();
}

function requests() {
  const shared = { prompt: $("prompt").value, n: Number($("n").value), ...sampling() };
  if (!$("at_start").checked) shared.at_start = false; // else as the model was trained
  return [$("model").value, $("other").value].filter(Boolean).map((model) => ({ model, ...shared }));
}

// The text number `index` of a request.
function newSheet(request, index) {
  const sheet = new Sheet({ ...request, seed: request.seed + index, n: 1 }, request.prompt);
  const goOn = element("button", { type: "button", textContent: word("go-on") });
  const asCode = element("button", { type: "button", className: "server", textContent: word("as-code") });
  goOn.onclick = () => {
    $("prompt").value = request.prompt + sheet.text;
    write();
  };
  asCode.onclick = () => showCode(sheet.request);
  sheet.buttons.prepend(goOn);
  sheet.buttons.append(asCode);
  return sheet;
}

export async function write() {
  $("examples").hidden = true;
  const asked = requests();
  const groups = asked.map((request) => Array.from({ length: request.n }, (_, i) => newSheet(request, i)));
  showSheets(asked.map(({ model }) => model), groups);
  if ($("sheets").getBoundingClientRect().top > innerHeight / 2) $("status").scrollIntoView(); // a phone
  if (await generate(asked, groups)) remember(asked, groups.flat());
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

// ---------------------------------------------------------------- history

function remember(asked, sheets) {
  const texts = sheets.map(({ request, text }) => ({ request, text }));
  store("history", [
    { when: Date.now(), prompt: asked[0].prompt, settings: settings(), texts },
    ...stored("history", []),
  ].slice(0, MAX_HISTORY));
}

export function showHistory() {
  const entries = stored("history", []);
  $("no-history").hidden = entries.length > 0;
  $("forget").hidden = !entries.length;
  $("entries").replaceChildren(...entries.map((entry) => {
    const button = element("button", { type: "button" },
      element("time", { textContent: new Date(entry.when).toLocaleString(document.documentElement.lang) }),
      element("span", { className: "prompt", textContent: entry.prompt }),
      element("span", { textContent: entry.texts[0]?.text ?? "" }));
    button.onclick = () => recall(entry);
    return element("li", {}, button);
  }));
  if (!$("history").open) $("history").showModal();
}

function recall(entry) {
  stop();
  $("history").close();
  $("prompt").value = entry.prompt;
  restoreSettings(entry.settings);
  const names = [...new Set(entry.texts.map(({ request }) => request.model))];
  showSheets(names, names.map((model) => entry.texts
    .filter(({ request }) => request.model === model)
    .map(({ request, text }) => newSheet(request, 0).recall(text))));
  keepDraft();
}
