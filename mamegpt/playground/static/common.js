// What the parts of the page share: elements, what is kept in the browser, words in the chosen language.

import { storageName } from "./backend.js";

export const $ = (id) => document.getElementById(id);

export const LANGUAGES = { ja: "日本語", en: "English" };

export function stored(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`${storageName}.${name}`)) ?? fallback;
  } catch {
    return fallback; // storage is switched off, or holds something else
  }
}

export function store(name, value) {
  try {
    localStorage.setItem(`${storageName}.${name}`, JSON.stringify(value));
  } catch {
    // full or switched off: the page works without
  }
}

export let words = {};
export let language = stored("language", navigator.language.startsWith("ja") ? "ja" : "en");

export function useWords(found) {
  words = found;
}

export function useLanguage(chosen) {
  language = chosen;
  store("language", chosen);
}

// A word, its fields filled in.
export function word(name, fields = {}) {
  return words[language][name].replaceAll(/\{(\w+)\}/g, (_, field) => fields[field]);
}

// Show what an error says, or that there is none; those of the backend name a word.
export function showProblem(error) {
  $("problem").hidden = !error;
  if (words[language]?.[error?.message]) say($("problem"), error.message, error.fields);
  else sayNothing($("problem"), error?.message);
}

export function element(tag, options = {}, ...children) {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...children);
  return made;
}

// Show a word in an element, also after the language has changed.
export function say(target, name, fields = {}) {
  target.dataset.word = name;
  target.fields = fields;
  target.textContent = word(name, fields);
  return target;
}

// Take the word out of an element, or leave a text in its place that is the same in each language.
export function sayNothing(target, text = "") {
  delete target.dataset.word;
  target.textContent = text;
}

// A button that is named by a word.
export function button(name, onclick, options = {}) {
  return say(element("button", { type: "button", onclick, ...options }), name);
}

export function number(value, digits = 0) {
  return value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export async function copy(text, button) {
  await navigator.clipboard.writeText(text);
  const before = button.textContent;
  button.textContent = word("copied");
  setTimeout(() => (button.textContent = before), 1200);
}
