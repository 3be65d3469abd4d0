// The settings of the page: which model, how many texts, how tokens are sampled.

import { $, element, number, store, stored, word } from "./common.js";

const NUMBERS = ["temperature", "max_tokens", "top_p", "top_k", "min_p", "repetition_penalty"];
const FIELDS = [...NUMBERS, "seed", "stop_at", "at_start", "model", "other", "n"];

let models = [];

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

export function keepSettings() {
  showValues();
  store("settings", settings());
}

export function restoreSettings(values = stored("settings", {})) {
  for (const name of FIELDS) if (values[name] !== undefined) $(name)[property(name)] = values[name];
  for (const name of ["model", "other"]) if ($(name).selectedIndex < 0) $(name).selectedIndex = 0;
  showValues();
}

export function resetSettings() {
  for (const one of $("settings").querySelectorAll("input")) {
    if (one.type === "checkbox") one.checked = one.defaultChecked;
    else one.value = one.defaultValue;
  }
  keepSettings();
}

export function showModels(found = models) {
  models = found;
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

// What a request says of sampling.
export function sampling() {
  const seed = $("seed").value === "" ? crypto.getRandomValues(new Uint32Array(1))[0] : Number($("seed").value);
  const stop = $("stop_at").value.replaceAll("\\n", "\n");
  const found = { seed };
  for (const name of NUMBERS) found[name] = Number($(name).value);
  if (stop) found.stop = [stop];
  return found;
}
