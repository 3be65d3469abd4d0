"""The words of the playground's page, which its script shows in the language that is chosen there."""

from __future__ import annotations

from mamegpt.messages import LANGUAGES, msg, translate

__all__ = ["words"]

WORDS = {
    "history": msg("History"),
    "share": msg("One file"),
    "share-help": msg("Save this model as one HTML file that any browser opens offline"),
    "making-page": msg("making an HTML file of the model, and verifying it…"),
    "page-made": msg("{file}: open it with any browser"),
    "theme": msg("Switch between light and dark"),
    "mode-write": msg("Continue text"),
    "mode-chat": msg("Chat"),
    "prompt": msg("Prompt"),
    "prompt-hint": msg("Enter a prompt, and the model continues it."),
    "message-hint": msg("Write a message. Enter sends it; Shift+Enter begins a new line."),
    "send": msg("Send"),
    "new-chat": msg("New chat"),
    "edit": msg("Edit"),
    "cancel": msg("Cancel"),
    "retry": msg("Retry"),
    "chat-help": msg("When a chat is too long for the model, it reads only the newest messages."),
    "model": msg("Model"),
    "compare": msg("Compare with"),
    "nothing": msg("none"),
    "texts": msg("How many"),
    "stop": msg("Stop"),
    "write": msg("Generate"),
    "settings": msg("Generation settings"),
    "temperature": msg("Temperature"),
    "temperature-help": msg("0 always takes the most probable token; higher is more diverse."),
    "max-tokens": msg("Length"),
    "max-tokens-help": msg("Maximum number of tokens to generate."),
    "top-p": msg("Top-p"),
    "top-p-help": msg("Samples from the most probable tokens, up to this total probability."),
    "top-k": msg("Top-k"),
    "top-k-help": msg("Samples from this many of the most probable tokens. 0: no limit."),
    "min-p": msg("Min-p"),
    "min-p-help": msg("Samples only tokens with at least this fraction of the top token's probability. 0: no limit."),
    "repetition-penalty": msg("Repetition penalty"),
    "repetition-penalty-help": msg("1: off; 1.1 to 1.3 reduces repetition."),
    "seed": msg("Seed"),
    "seed-hint": msg("random"),
    "seed-help": msg("The same seed and settings give the same text."),
    "stop-at": msg("Stop sequence"),
    "stop-at-hint": msg("none"),
    "stop-at-help": msg("Generation ends just before this text. \\n is a line break."),
    "at-start": msg("Prompt is the beginning of a text"),
    "at-start-help": msg("Off: the prompt is treated as the middle of a text."),
    "defaults": msg("Reset to defaults"),
    "tokens": msg("Show probabilities"),
    "expected": msg("expected"),
    "surprising": msg("surprising"),
    "no-history": msg("Nothing generated yet."),
    "forget": msg("Clear history"),
    "close": msg("Close"),
    "code": msg("Use as code"),
    "command": msg("Command"),
    "copy": msg("Copy"),
    "copied": msg("Copied"),
    "go-on": msg("Continue"),
    "as-code": msg("Code"),
    "waiting": msg("waiting (number {place} in the queue)"),
    "preparing": msg("preparing…"),
    "writing": msg("generating · {n} characters/s"),
    "done": msg("{n} characters generated in {elapsed_s} s"),
    "ended": msg("end of text"),
    "long-enough": msg("maximum length reached"),
    "stopped": msg("stopped"),
    "seed-is": msg("seed {seed}"),
    "long-question": msg(
        "The question is too long: {n} tokens with its turn, but the model reads {most} at once. Shorten it."
    ),
    "failed": msg("Failed: {reason}"),
    "unreachable": msg("The server cannot be reached; check that mamegpt play is running."),
    "bits": msg("{bits} bits"),
    "step": msg("step {step}"),
    "bits-per-character": msg("{bits} bits/character"),
}
"""By the names that ``index.html`` and the scripts have for them; a script fills in the fields."""


def words() -> dict[str, dict[str, str]]:
    """Return the words by language and name."""
    return {language: {name: translate(word, language) for name, word in WORDS.items()} for language in LANGUAGES}
