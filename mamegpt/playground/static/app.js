// The playground's page. Text from the model reaches the document through textContent only.

import { listModels, loadWords, pageOf } from "./backend.js";
import {
  $, LANGUAGES, copy, element, language, showProblem, store, stored, useLanguage, useWords, word, words,
} from "./common.js";
import { keepDraft, showExamples, showHistory, write } from "./continuation.js";
import { stop } from "./generate.js";
import { keepSettings, resetSettings, restoreSettings, showModels } from "./settings.js";
import { explainTokens, hideTip } from "./sheet.js";

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

// Save the chosen model as one file, which anybody can open.
async function share() {
  const model = $("model").value;
  $("share").disabled = true;
  showProblem(null);
  $("status").textContent = word("making-page");
  try {
    const link = element("a", { href: URL.createObjectURL(await pageOf(model)), download: `${model.split(/[/\\]/).at(-1)}.html` });
    link.click();
    $("status").textContent = word("page-made", { file: link.download });
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    $("status").textContent = "";
    showProblem(error);
  }
  $("share").disabled = false;
}

async function begin() {
  setTheme(stored("theme", ""));
  useWords(await loadWords());
  translate();
  $("prompt").value = stored("draft", "");
  $("heat").checked = stored("heat", false);
  showExamples();

  $("desk").onsubmit = (event) => {
    event.preventDefault();
    write();
  };
  $("desk").oninput = keepSettings;
  $("prompt").oninput = keepDraft;
  $("stop").onclick = stop;
  $("defaults").onclick = resetSettings;
  $("language").onclick = () => {
    useLanguage(otherLanguage());
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
      stop();
    }
  });
  explainTokens($("sheets"));

  showModels(await listModels());
  restoreSettings();
}

begin().catch(showProblem);
