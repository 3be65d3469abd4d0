// What was generated before, kept in the browser: texts, and chats.

import { $, element, language, store, stored } from "./common.js";

const MAX_HISTORY = 50;

// An entry has `when`, `prompt`, `settings` and `texts`, each with its request; one of a chat has its `messages`, too,
// and the newest of an equal `id` counts.
export function remember(entry) {
  const others = stored("history", []).filter(({ id }) => !id || id !== entry.id);
  store("history", [entry, ...others].slice(0, MAX_HISTORY));
}

export function showHistory(recall) {
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
  if (!$("history").open) $("history").showModal();
}
