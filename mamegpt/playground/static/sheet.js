// A text that is being generated, and the probabilities of its tokens.

import { $, button, copy, element, number, say, word } from "./common.js";

const HOT_BITS = 10; // surprise that has the full colour

export class Sheet {
  // `before` is the text that it continues. `buttons` are shown when it is done.
  constructor(request, before = "") {
    this.request = request;
    this.characters = []; // Unicode characters, as the API counts them: a JavaScript string holds some of them in two units
    this.tokens = [];
    this.spans = [];
    this.body = element("p", { className: "text", tabIndex: 0 });
    if (before) this.body.append(element("span", { className: "prompt", textContent: before }));
    this.fact = say(element("span", { className: "fact" }), "seed-is", { seed: request.seed });
    this.end = element("span", { className: "fact" });
    this.buttons = element("span", { className: "buttons" }, button("copy", (event) => copy(before + this.text, event.target)));
    this.root = element("article", {}, this.body, element("footer", {}, this.end, this.fact, this.buttons));
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
    if (choice.finish_reason === "stop") this.finish(this.request.messages ? "" : "ended"); // answers do end
    else if (choice.finish_reason) this.finish("long-enough");
  }

  // Show a text that was generated earlier.
  recall(text) {
    this.body.append(text);
    this.characters = [...text];
    this.finish("");
    return this;
  }

  // `how` is a word, or "".
  finish(how) {
    if (this.root.classList.contains("done")) return;
    this.root.classList.add("done");
    if (how) say(this.end, how);
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

export function hideTip() {
  document.querySelector(".token.chosen")?.classList.remove("chosen");
  $("tip").hidden = true;
}

export function showTip(span) {
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

// Show the probabilities of the token that is pointed at in `place`.
export function explainTokens(place) {
  const aim = (event) => {
    if ($("heat").checked) showTip(event.target.closest?.(".token"));
  };
  place.addEventListener("pointerover", aim);
  place.addEventListener("click", aim);
  place.addEventListener("pointerleave", hideTip);
}

function percent(share) {
  if (share < 0.0001) return "< 0.01 %";
  return `${share < 0.0995 ? (100 * share).toFixed(share < 0.00095 ? 2 : 1) : Math.round(100 * share)} %`;
}
