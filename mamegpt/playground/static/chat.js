// A chat: a person and a model that was tuned to answer take turns.

import { showCode } from "./code.js";
import { $, button, copy, element, store, stored, word } from "./common.js";
import { generate, isGenerating, stop } from "./generate.js";
import { remember } from "./history.js";
import { sampling, settings } from "./settings.js";
import { Sheet } from "./sheet.js";

export const QUESTIONS = ["こんにちは", "「山」は何と読みますか", "「ねこ」を逆から読んでください", "みかん、なし、みかん。みかんはいくつですか"];

let id = 0; // when the chat began
let turns = []; // each with a role, its text and its element

export const hasTurns = () => turns.length > 0;

const messages = () => turns.map(({ role, text }) => ({ role, content: text }));

// Whether a key sends what is written: Enter, but not the one that ends the conversion of an input method.
export function isSend(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
}

function add(turn) {
  turns.push(turn);
  $("turns").append(turn.root);
  return turn;
}

function closeEdit() {
  $("turns").querySelector(".editing button")?.click(); // "cancel" is the first
}

// Leave out a turn and all after it.
function cutBefore(turn) {
  stop();
  closeEdit();
  const at = turns.indexOf(turn);
  for (const { root } of turns.splice(at)) root.remove();
}

function addQuestion(text) {
  const body = element("p", { className: "text", textContent: text });
  const copying = button("copy", () => copy(text, copying));
  const buttons = element("span", { className: "buttons" }, button("edit", () => edit(turn)), copying);
  const root = element("li", { className: "question done" }, body, element("footer", {}, buttons));
  const turn = add({ role: "user", text, root });
}

function addAnswer(request) {
  const sheet = new Sheet(request);
  const turn = {
    role: "assistant", sheet, root: element("li", { className: "answer" }, sheet.root),
    get text() {
      return sheet.text;
    },
  };
  sheet.buttons.prepend(button("retry", () => {
    cutBefore(turn);
    answer();
  }));
  sheet.buttons.append(button("as-code", () => showCode(request), { className: "server" }));
  return add(turn);
}

// Let a turn of the person be written again; the chat goes on from there.
function edit(turn) {
  closeEdit();
  const area = element("textarea", { value: turn.text, rows: 2 });
  area.setAttribute("aria-label", word("edit"));
  const cancel = () => form.replaceWith(turn.root);
  const resend = () => {
    if (!area.value.trim()) return;
    cutBefore(turn);
    addQuestion(area.value);
    answer();
  };
  const form = element("li", { className: "question editing" }, area,
    element("footer", {}, button("cancel", cancel), button("send", resend, { className: "main" })));
  area.onkeydown = (event) => {
    if (isSend(event)) {
      event.preventDefault();
      resend();
    }
    if (event.key === "Escape" && !event.isComposing) cancel();
    if (["Enter", "Escape"].includes(event.key)) event.stopPropagation(); // they are not for the rest of the page
  };
  turn.root.replaceWith(form);
  area.focus();
}

// Ask what is in the field for new text, unless an answer is still being generated.
export async function send() {
  const text = $("prompt").value;
  if (!text.trim() || isGenerating()) return;
  $("prompt").value = "";
  addQuestion(text);
  await answer();
}

async function answer() {
  const request = { model: $("model").value, messages: messages(), n: 1, ...sampling() };
  const turn = addAnswer(request);
  keep();
  showEnd();
  const watch = new ResizeObserver(showEnd); // of an answer that grows
  watch.observe(turn.root);
  const result = await generate([request], [[turn.sheet]]);
  watch.disconnect();
  if (!result || !turns.includes(turn)) return;
  if (!result.length && !result.isWhole) {
    const question = turns[turns.indexOf(turn) - 1];
    cutBefore(question);
    if (!$("prompt").value) $("prompt").value = question.text; // to be sent again
  } else {
    const texts = [{ request, text: turn.text }];
    remember({ when: Date.now(), id, prompt: turns[0].text, settings: settings(), texts, messages: messages() });
  }
  keep();
  showEnd();
}

function showEnd() {
  $("status").scrollIntoView({ block: "end" });
}

function keep() {
  const isAnswered = turns.at(-1)?.text;
  store("chat", { id, messages: isAnswered ? messages() : messages().slice(0, -2) });
}

function recallAnswer(before, text) {
  const { sheet } = addAnswer({ model: $("model").value, messages: before, n: 1, ...sampling() });
  sheet.recall(text);
  sheet.fact.remove(); // its seed was another
}

// Show a chat as it was: the one of the page before it was closed, or one of the history.
export function recallChat(chat = stored("chat", {})) {
  stop();
  $("turns").replaceChildren();
  turns = [];
  id = chat.id ?? Date.now();
  for (const [i, { role, content }] of (chat.messages ?? []).entries()) {
    if (role === "user") addQuestion(content);
    else recallAnswer(chat.messages.slice(0, i), content);
  }
  keep();
}

export function newChat() {
  recallChat({});
  $("prompt").focus();
}
