// The playground's page. Text from the model reaches the document through textContent only.

import { listModels, loadWords, pageOf } from "./backend.js";
import { QUESTIONS, hasTurns, isSend, newChat, recallChat, send } from "./chat.js";
import {
  $, LANGUAGES, copy, element, language, say, sayNothing, showProblem, store, stored, useLanguage, useWords, word, words,
} from "./common.js";
import { PROMPTS, recallTexts, write } from "./continuation.js";
import { stop } from "./generate.js";
import { showHistory } from "./history.js";
import { keepSettings, mode, resetSettings, restoreSettings, showModels, useMode, useModels } from "./settings.js";
import { explainTokens, hideTip } from "./sheet.js";

function translate() {
  document.documentElement.lang = language;
  for (const one of document.querySelectorAll("[data-word]")) one.textContent = word(one.dataset.word, one.fields);
  for (const one of document.querySelectorAll("[data-label]")) {
    one.title = words[language][one.dataset.label];
    one.ariaLabel = one.title;
  }
  for (const one of document.querySelectorAll("[data-hint]")) one.placeholder = words[language][one.dataset.hint];
  $("language").textContent = LANGUAGES[otherLanguage()];
  showModels();
  showHint();
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

// Save the chosen model as one file, which anybody can open.
async function share() {
  const model = $("model").value;
  $("share").disabled = true;
  showProblem(null);
  say($("status"), "making-page");
  try {
    const link = element("a", { href: URL.createObjectURL(await pageOf(model)), download: `${model.split(/[/\\]/).at(-1)}.html` });
    link.click();
    say($("status"), "page-made", { file: link.download });
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    sayNothing($("status"));
    showProblem(error);
  }
  $("share").disabled = false;
}

// ---------------------------------------------------------------- the two modes

const act = () => (mode === "chat" ? send() : write());
const draft = () => (mode === "chat" ? "message" : "draft");

function showHint() {
  $("prompt").placeholder = mode === "chat" ? word("message-hint") : word("prompt-hint");
}

function setMode(chosen) {
  stop();
  useMode(chosen);
  store("mode", mode);
  $("prompt").value = stored(draft(), "");
  showHint();
  $("examples").replaceChildren(...(mode === "chat" ? QUESTIONS : PROMPTS).map((text) => {
    const button = element("button", { type: "button", textContent: text });
    button.onclick = () => {
      $("prompt").value = text;
      begun(act());
    };
    return button;
  }));
  keepDraft();
}

// Keep what is written and not sent, and show examples as long as there is nothing.
function keepDraft() {
  store(draft(), $("prompt").value);
  const isEmpty = mode === "chat" ? !hasTurns() : !$("sheets").children.length;
  $("examples").hidden = Boolean($("prompt").value) || !isEmpty;
}

async function begun(generation) {
  keepDraft();
  await generation;
  keepDraft();
}

function recall(entry) {
  stop();
  $("history").close();
  setMode(entry.messages ? "chat" : "write");
  restoreSettings(entry.settings);
  if (entry.messages) recallChat(entry);
  else recallTexts(entry);
  keepDraft();
}

// ---------------------------------------------------------------- begin

async function begin() {
  setTheme(stored("theme", ""));
  useWords(await loadWords());
  translate();
  $("heat").checked = stored("heat", false);

  $("desk").onsubmit = (event) => {
    event.preventDefault();
    begun(act());
  };
  $("desk").oninput = keepSettings;
  $("prompt").oninput = keepDraft;
  $("modes").onchange = (event) => setMode(event.target.value);
  $("new-chat").onclick = () => {
    newChat();
    keepDraft();
  };
  $("stop").onclick = stop;
  $("defaults").onclick = resetSettings;
  $("language").onclick = () => {
    useLanguage(otherLanguage());
    translate();
  };
  $("theme").onclick = otherTheme;
  $("share").onclick = share;
  $("open-history").onclick = () => showHistory(recall);
  $("forget").onclick = () => {
    store("history", []);
    showHistory(recall);
  };
  $("copy-code").onclick = () => copy($("code").querySelector("pre").textContent, $("copy-code"));
  $("heat").onchange = () => {
    store("heat", $("heat").checked);
    hideTip();
  };
  document.addEventListener("keydown", (event) => {
    const isForUs = event.ctrlKey || event.metaKey || (mode === "chat" && event.target === $("prompt"));
    if (isSend(event) && isForUs) {
      event.preventDefault();
      begun(act());
    }
    if (event.key === "Escape" && !event.isComposing) {
      hideTip();
      stop();
    }
  });
  for (const place of ["sheets", "turns"]) explainTokens($(place));
  addEventListener("resize", hideTip);

  const models = await listModels();
  useModels(models);
  setMode(stored("mode", models[0].answers ? "chat" : "write"));
  recallChat();
  keepDraft();
}

begin().catch(showProblem);
