// The settings of each mode of the page: which model, how many texts, how tokens are sampled.

import { $, element, number, store, stored, word } from "./common.js";

const NUMBERS = ["temperature", "max_tokens", "top_p", "top_k", "min_p", "repetition_penalty"];
const OPTIONS = [...NUMBERS, "seed", "stop_at", "at_start"];
const FIELDS = [...OPTIONS, "model", "other", "n"];
const CHAT_DEFAULTS = { temperature: "0.3" }; // an answer is right or wrong; retries still differ

let models = [];
export let mode = "write"; // or "chat"

function showValues() {
  for (const name of NUMBERS) $(name).closest("label").querySelector("output").value = $(name).value;
}

// The property of a field that a person sets.
function property(name) {
  return $(name).type === "checkbox" ? "checked" : "value";
}

export function settings() {
  return Object.fromEntries(FIELDS.map((name) => [name, $(name)[property(name)]]));
}

const place = () => (mode === "chat" ? "chat-settings" : "settings"); // in the browser's storage

export function keepSettings() {
  showValues();
  store(place(), settings());
}

function defaults() {
  const all = OPTIONS.map((name) => [name, $(name)[property(name) === "checked" ? "defaultChecked" : "defaultValue"]]);
  return { ...Object.fromEntries(all), ...(mode === "chat" ? CHAT_DEFAULTS : {}) };
}

export function restoreSettings(values) {
  for (const name of FIELDS) if (values[name] !== undefined) $(name)[property(name)] = values[name];
  for (const name of ["model", "other"]) if ($(name).selectedIndex < 0) $(name).selectedIndex = 0;
  showValues();
}

export function resetSettings() {
  restoreSettings(defaults());
  keepSettings();
}

export const canChat = () => models.some((model) => model.answers);

export function useModels(found) {
  models = found;
}

// Show one mode of the page, with its settings and models: those that answer can chat.
export function useMode(chosen) {
  mode = canChat() ? chosen : "write";
  document.body.dataset.mode = mode;
  $("modes").hidden = !canChat();
  for (const radio of document.getElementsByName("mode")) radio.checked = radio.value === mode;
  showModels();
  restoreSettings({ ...defaults(), ...stored(place(), {}) });
}

export function showModels() {
  const chosen = [$("model").value, $("other").value];
  const options = (some) => some.map((model) => {
    const facts = [model.id];
    if (model.step !== null) facts.push(word("step", { step: number(model.step) }));
    if (model.bits_per_character !== null) facts.push(word("bits-per-character", { bits: number(model.bits_per_character, 3) }));
    return element("option", { value: model.id, textContent: facts.join(" · ") });
  });
  $("model").replaceChildren(...options(models.filter((model) => mode === "write" || model.answers)));
  $("other").replaceChildren(element("option", { value: "", textContent: word("nothing") }), ...options(models));
  restoreSettings({ model: chosen[0], other: chosen[1] });
}

// What a request says of sampling.
export function sampling() {
  const seed = $("seed").value === "" ? crypto.getRandomValues(new Uint32Array(1))[0] : Number($("seed").value);
  const stop = $("stop_at").value.replaceAll("\\n", "\n");
  const found = { seed };
  for (const name of NUMBERS) found[name] = Number($(name).value);
  if (stop) found.stop = [stop];
  return found;
}
