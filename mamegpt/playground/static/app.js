// The playground's page. Text from the model reaches the document through textContent only.

import { complete, listModels, loadWords, pageOf, storageName } from "./backend.js";

const $ = (id) => document.getElementById(id);
const NUMBERS = ["temperature", "max_tokens", "top_p", "top_k", "min_p", "repetition_penalty"];
const FIELDS = [...NUMBERS, "seed", "stop_at", "at_start", "model", "other", "n"];
const LANGUAGES = { ja: "日本語", en: "English" };
const EXAMPLES = ["【ふしぎな手紙】", "ある春の朝、", "月見町は、", "日本の"];
const MAX_HISTORY = 50;
const N_ALTERNATIVES = 5;
const HOT_BITS = 10; // surprise that has the full colour

let words = {};
let language = stored("language", navigator.language.startsWith("ja") ? "ja" : "en");
let models = [];
let running = null; // an AbortController while something is being written

// ---------------------------------------------------------------- small things

function stored(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`${storageName}.${name}`)) ?? fallback;
  } catch {
    return fallback; // storage is switched off, or holds something else
  }
}

function store(name, value) {
  try {
    localStorage.setItem(`${storageName}.${name}`, JSON.stringify(value));
  } catch {
    // full or switched off: the page works without
  }
}

// A word, its fields filled in.
function word(name, fields = {}) {
  return words[language][name].replaceAll(/\{(\w+)\}/g, (_, field) => fields[field]);
}

// What an error says; those of the backend name a word.
function explain(error) {
  return words[language]?.[error.message] ? word(error.message, error.fields) : error.message;
}

function element(tag, options = {}, ...children) {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...children);
  return made;
}

function number(value, digits = 0) {
  return value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

async function copy(text, button) {
  await navigator.clipboard.writeText(text);
  const before = button.textContent;
  button.textContent = word("copied");
  setTimeout(() => (button.textContent = before), 1200);
}

// ---------------------------------------------------------------- words, theme, settings

function translate() {
  document.documentElement.lang = language;
  for (const one of document.querySelectorAll("[data-word]")) one.textContent = words[language][one.dataset.word];
  for (const one of document.querySelectorAll("[data-label]")) {
    one.title = words[language][one.dataset.label];
    one.ariaLabel = one.title;
  }
  for (const one of document.querySelectorAll("[data-hint]")) one.placeholder = words[language][one.dataset.hint];
  $("language").textContent = LANGUAGES[otherLanguage()];
  showModels();
}

function otherLanguage() {
  return language === "ja" ? "en" : "ja";
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  store("theme", theme);
}

function otherTheme() {
  const now = document.documentElement.dataset.theme;
  const isDark = now ? now === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(isDark ? "light" : "dark");
}

function showValues() {
  for (const name of NUMBERS) $(name).closest("label").querySelector("output").value = $(name).value;
}

// The property of a field that a person sets.
function property(name) {
  return $(name).type === "checkbox" ? "checked" : "value";
}

function settings() {
  return Object.fromEntries(FIELDS.map((name) => [name, $(name)[property(name)]]));
}

function keepSettings() {
  showValues();
  store("settings", settings());
}

function restoreSettings(values) {
  for (const name of FIELDS) if (values[name] !== undefined) $(name)[property(name)] = values[name];
  for (const name of ["model", "other"]) if ($(name).selectedIndex < 0) $(name).selectedIndex = 0;
  showValues();
}

function showModels() {
  const chosen = [$("model").value, $("other").value];
  const options = () => models.map((model) => {
    const facts = [model.id];
    if (model.step !== null) facts.push(word("step", { step: number(model.step) }));
    if (model.bits_per_character !== null) facts.push(word("bits-per-character", { bits: number(model.bits_per_character, 3) }));
    return element("option", { value: model.id, textContent: facts.join(" · ") });
  });
  $("model").replaceChildren(...options());
  $("other").replaceChildren(element("option", { value: "", textContent: word("nothing") }), ...options());
  restoreSettings({ model: chosen[0], other: chosen[1] });
}

// ---------------------------------------------------------------- one text that is being written

class Sheet {
  constructor(request, index) {
    this.request = { ...request, seed: request.seed + index, n: 1 };
    this.characters = []; // Unicode characters, as the API counts them: a JavaScript string holds some of them in two units
    this.tokens = [];
    this.spans = [];
    this.body = element("p", { className: "text", tabIndex: 0 });
    this.body.append(element("span", { className: "prompt", textContent: request.prompt }));
    this.fact = element("span", { className: "fact", textContent: word("seed-is", { seed: this.request.seed }) });
    this.end = element("span", { className: "fact" });
    const goOn = element("button", { type: "button", textContent: word("go-on") });
    const copying = element("button", { type: "button", textContent: word("copy") });
    const asCode = element("button", { type: "button", className: "server", textContent: word("as-code") });
    goOn.onclick = () => {
      $("prompt").value = request.prompt + this.text;
      write();
    };
    copying.onclick = () => copy(request.prompt + this.text, copying);
    asCode.onclick = () => showCode(this.request);
    this.root = element(
      "article", {}, this.body,
      element("footer", {}, this.end, this.fact, element("span", { className: "buttons" }, goOn, copying, asCode)),
    );
    this.body.onkeydown = (event) => this.move(event);
  }

  get text() {
    return this.characters.join("");
  }

  // A choice of the API: more text, and the tokens it is made of.
  add(choice) {
    let from = Math.max(0, this.spans.length - 1); // the newest span may have waited for its text
    this.characters.push(...choice.text);
    const found = choice.logprobs;
    found?.tokens.forEach((token, i) => {
      const span = element("span", { className: "token" });
      this.tokens.push({
        token, logprob: found.token_logprobs[i], top: found.top_logprobs[i], offset: found.text_offset[i], span,
      });
      span.token = this.tokens.length - 1;
      span.sheet = this;
      this.spans.push(span);
      this.body.append(span);
    });
    while (from > 0 && !this.spans[from - 1].textContent) from--;
    for (let i = from; i < this.spans.length; i++) {
      const { offset, span } = this.tokens[i];
      span.textContent = this.characters.slice(offset, this.tokens[i + 1]?.offset).join("");
      span.style.setProperty("--heat", Math.min(1, this.bits(i) / HOT_BITS).toFixed(3));
    }
    if (choice.finish_reason) this.finish(choice.finish_reason === "stop" ? word("ended") : word("long-enough"));
  }

  finish(how) {
    this.root.classList.add("done");
    if (!this.end.textContent) this.end.textContent = how;
  }

  // The tokens that share a character with token i: bytes spell one together, and only the last of them shows it.
  group(i) {
    let first = i;
    while (first > 0 && !this.spans[first - 1].textContent) first--;
    return this.tokens.slice(first, i + 1);
  }

  bits(i) {
    return this.group(i).reduce((sum, token) => sum - token.logprob, 0) / Math.LN2;
  }

  // Arrow keys go from token to token.
  move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !$("heat").checked) return;
    event.preventDefault();
    const seen = this.spans.filter((span) => span.textContent);
    const now = seen.findIndex((span) => span.classList.contains("chosen"));
    showTip(seen[Math.max(0, Math.min(seen.length - 1, now + step))]);
  }
}

// ---------------------------------------------------------------- what else it could have been

function hideTip() {
  document.querySelector(".token.chosen")?.classList.remove("chosen");
  $("tip").hidden = true;
}

function showTip(span) {
  hideTip();
  if (!span) return;
  span.classList.add("chosen");
  const group = span.sheet.group(span.token);
  const { token, logprob, top } = group[0];
  const bits = span.sheet.bits(span.token);
  const rows = Object.entries(top).sort(([, a], [, b]) => b - a); // an object lists whole numbers first
  if (!(token in top)) rows.push([token, logprob]);
  const best = Math.max(...rows.map(([, value]) => value));
  const shown = (text) => text.replaceAll("\n", "⏎").replaceAll(" ", "␣");
  $("tip").replaceChildren(
    element("p", {}, element("b", { textContent: shown(span.textContent) }), " ",
      `${percent(2 ** -bits)} · ${word("bits", { bits: number(bits, 1) })}`),
    element("ul", {}, ...rows.map(([text, value]) => {
      const bar = element("i");
      bar.style.width = `${100 * Math.exp(value - best)}%`;
      return element("li", { className: text === token ? "taken" : "" },
        element("span", { textContent: shown(text) }), element("span", { className: "track" }, bar),
        element("span", { textContent: percent(Math.exp(value)) }));
    })),
  );
  $("tip").hidden = false;
  const [box, tip] = [span.getClientRects()[0], $("tip").getBoundingClientRect()];
  const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - tip.width - 8));
  const below = box.bottom + 8;
  const top_ = below + tip.height > innerHeight ? box.top - tip.height - 8 : below;
  $("tip").style.left = `${left + scrollX}px`;
  $("tip").style.top = `${Math.max(8, top_) + scrollY}px`;
}

function percent(share) {
  if (share < 0.0001) return "< 0.01 %";
  return `${share < 0.0995 ? (100 * share).toFixed(share < 0.00095 ? 2 : 1) : Math.round(100 * share)} %`;
}

// ---------------------------------------------------------------- writing

function requests() {
  const seed = $("seed").value === "" ? crypto.getRandomValues(new Uint32Array(1))[0] : Number($("seed").value);
  const stop = $("stop_at").value.replaceAll("\\n", "\n");
  const shared = { prompt: $("prompt").value, n: Number($("n").value), seed };
  for (const name of NUMBERS) shared[name] = Number($(name).value);
  if (stop) shared.stop = [stop];
  if (!$("at_start").checked) shared.at_start = false; // else as the model was trained
  return [$("model").value, $("other").value].filter(Boolean).map((model) => ({ model, ...shared }));
}

async function write() {
  running?.abort();
  const mine = (running = new AbortController());
  hideTip();
  $("problem").hidden = true;
  $("stop").hidden = false;
  $("examples").hidden = true;
  $("status").textContent = word("preparing");
  const began = performance.now();
  const asked = requests();
  const groups = asked.map((request) => Array.from({ length: request.n }, (_, i) => new Sheet(request, i)));
  showSheets(asked.map(({ model }) => model), groups);
  if ($("sheets").getBoundingClientRect().top > innerHeight / 2) $("status").scrollIntoView(); // a phone
  const everything = groups.flat();
  const length = () => everything.reduce((sum, sheet) => sum + sheet.characters.length, 0);
  const seconds = () => (performance.now() - began) / 1000;

  const results = await Promise.allSettled(asked.map((request, i) => complete(
    { ...request, logprobs: N_ALTERNATIVES }, mine.signal,
    (data) => {
      for (const choice of data.choices) groups[i][choice.index].add(choice);
      $("status").textContent = `${word("writing")} · ${word("speed", { n: number(length() / seconds()) })}`;
    },
    (place) => {
      if (!length()) $("status").textContent = word("waiting", { place });
    },
  )));
  if (running !== mine) return; // another text has begun
  running = null;
  for (const sheet of everything) sheet.finish(word("stopped"));
  $("stop").hidden = true;
  $("status").textContent = length() ? word("done", { n: number(length()), elapsed_s: number(seconds(), 1) }) : "";
  const failed = results.find(({ reason }) => reason && reason.name !== "AbortError");
  if (failed) {
    $("problem").textContent = explain(failed.reason);
    $("problem").hidden = false;
  }
  if (length()) remember(asked, everything);
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

// ---------------------------------------------------------------- history and code

function remember(asked, sheets) {
  const texts = sheets.map(({ request, text }) => ({ request, text }));
  store("history", [
    { when: Date.now(), prompt: asked[0].prompt, settings: settings(), texts },
    ...stored("history", []),
  ].slice(0, MAX_HISTORY));
}

function showHistory() {
  const entries = stored("history", []);
  $("no-history").hidden = entries.length > 0;
  $("forget").hidden = !entries.length;
  $("entries").replaceChildren(...entries.map((entry) => {
    const button = element("button", { type: "button" },
      element("time", { textContent: new Date(entry.when).toLocaleString(language) }),
      element("span", { className: "prompt", textContent: entry.prompt }),
      element("span", { textContent: entry.texts[0]?.text ?? "" }));
    button.onclick = () => recall(entry);
    return element("li", {}, button);
  }));
  $("history").showModal();
}

function recall(entry) {
  running?.abort();
  $("history").close();
  $("prompt").value = entry.prompt;
  restoreSettings(entry.settings);
  const names = [...new Set(entry.texts.map(({ request }) => request.model))];
  showSheets(names, names.map((model) => entry.texts
    .filter(({ request }) => request.model === model)
    .map(({ request, text }) => {
      const sheet = new Sheet(request, 0);
      sheet.body.append(text);
      sheet.characters = [...text];
      sheet.finish("");
      return sheet;
    })));
  keepDraft();
}

const IDLE_IF_GREEDY = ["top_k", "top_p", "min_p", "seed"]; // what the command line refuses with temperature 0

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

const CODE = {
  python: ({ model, prompt, max_tokens, temperature, top_p, seed, stop, ...rest }) => [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${location.origin}/v1`)}, api_key="none")`,
    "stream = client.completions.create(",
    `    model=${JSON.stringify(model)},`,
    `    prompt=${JSON.stringify(prompt)},`,
    `    max_tokens=${max_tokens}, temperature=${temperature}, top_p=${top_p}, seed=${seed},`,
    ...(stop ? [`    stop=${JSON.stringify(stop)},`] : []),
    `    extra_body={"top_k": ${rest.top_k}, "min_p": ${rest.min_p}, "repetition_penalty": ${rest.repetition_penalty}${
      rest.at_start === false ? ', "at_start": False' : ""}},`,
    "    stream=True,",
    ")",
    "for chunk in stream:",
    '    print(chunk.choices[0].text, end="", flush=True)',
  ].join("\n"),
  curl: (request) =>
    `curl ${location.origin}/v1/completions -H 'content-type: application/json' \\\n  -d ${quoted(JSON.stringify(request))}`,
  command: ({ model, prompt, max_tokens, stop, n, ...rest }) => [
    `mamegpt generate --model ${quoted(model)} --prompt ${quoted(prompt)} --max-new-tokens ${max_tokens}`,
    ...Object.entries(rest)
      .filter(([name]) => rest.temperature > 0 || !IDLE_IF_GREEDY.includes(name))
      .map(([name, value]) => `  --${name.replaceAll("_", "-")} ${value === false ? "False" : value}`),
    ...(stop ? [`  --stop $${quoted(stop[0].replaceAll("\\", "\\\\").replaceAll("\n", "\\n"))}`] : []),
  ].join(" \\\n"),
};

function showCode(request) {
  const show = () => {
    const kind = document.querySelector("[name=kind]:checked").value;
    $("code").querySelector("pre").textContent = CODE[kind](request);
  };
  for (const radio of document.getElementsByName("kind")) radio.onchange = show;
  show();
  $("code").showModal();
}

// Save the chosen model as one file, which anybody can open.
async function share() {
  const model = $("model").value;
  $("share").disabled = true;
  $("problem").hidden = true;
  $("status").textContent = word("making-page");
  try {
    const link = element("a", { href: URL.createObjectURL(await pageOf(model)), download: `${model.split(/[/\\]/).at(-1)}.html` });
    link.click();
    $("status").textContent = word("page-made", { file: link.download });
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    $("status").textContent = "";
    $("problem").textContent = explain(error);
    $("problem").hidden = false;
  }
  $("share").disabled = false;
}

// ---------------------------------------------------------------- begin

function keepDraft() {
  store("draft", $("prompt").value);
  $("examples").hidden = Boolean($("prompt").value || $("sheets").children.length);
}

async function begin() {
  setTheme(stored("theme", ""));
  words = await loadWords();
  translate();
  $("prompt").value = stored("draft", "");
  $("heat").checked = stored("heat", false);
  $("examples").append(...EXAMPLES.map((text) => {
    const button = element("button", { type: "button", textContent: text });
    button.onclick = () => {
      $("prompt").value = text;
      write();
    };
    return button;
  }));
  keepDraft();
  showValues();

  $("desk").onsubmit = (event) => {
    event.preventDefault();
    write();
  };
  $("desk").oninput = keepSettings;
  $("prompt").oninput = keepDraft;
  $("stop").onclick = () => running?.abort();
  $("defaults").onclick = () => {
    for (const one of $("settings").querySelectorAll("input")) {
      if (one.type === "checkbox") one.checked = one.defaultChecked;
      else one.value = one.defaultValue;
    }
    keepSettings();
  };
  $("language").onclick = () => {
    language = otherLanguage();
    store("language", language);
    translate();
  };
  $("theme").onclick = otherTheme;
  $("share").onclick = share;
  $("open-history").onclick = showHistory;
  $("forget").onclick = () => {
    store("history", []);
    showHistory();
  };
  $("copy-code").onclick = () => copy($("code").querySelector("pre").textContent, $("copy-code"));
  $("heat").onchange = () => {
    store("heat", $("heat").checked);
    hideTip();
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) write();
    if (event.key === "Escape") {
      hideTip();
      running?.abort();
    }
  });
  const aim = (event) => {
    if ($("heat").checked) showTip(event.target.closest?.(".token"));
  };
  $("sheets").addEventListener("pointerover", aim);
  $("sheets").addEventListener("click", aim);
  $("sheets").addEventListener("pointerleave", hideTip);

  models = await listModels();
  showModels();
  restoreSettings(stored("settings", {}));
}

begin().catch((error) => {
  $("problem").textContent = explain(error);
  $("problem").hidden = false;
});
