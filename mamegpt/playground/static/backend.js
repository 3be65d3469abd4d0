// What the page asks for, from the server. The page of an exported file has another one, which computes it itself.

export const storageName = "mamegpt";

// An error whose message is the name of a word.
function problem(name, fields = {}) {
  return Object.assign(new Error(name), { fields });
}

async function ask(path) {
  let answer;
  try {
    answer = await fetch(path);
  } catch {
    throw problem("unreachable");
  }
  const found = await answer.json();
  if (!answer.ok) throw problem("failed", { reason: found.error.message });
  return found;
}

export const loadWords = () => ask("words.json");

export const listModels = async () => (await ask("v1/models")).data;

// The HTML file that holds a model, as a blob.
export async function pageOf(model) {
  let answer;
  try {
    answer = await fetch(`v1/pages/${encodeURIComponent(model)}`, { method: "POST" });
  } catch {
    throw problem("unreachable");
  }
  if (!answer.ok) throw problem("failed", { reason: (await answer.json()).error.message });
  return answer.blob();
}

// Read texts or, of a request with messages, answers as they come: data to onData, the place in the queue to onPlace.
export async function complete(request, signal, onData, onPlace) {
  const body = request.messages ? { ...request, logprobs: true, top_logprobs: request.logprobs } : request;
  const form = request.messages ? chatForm() : (choice) => choice;
  let answer;
  try {
    answer = await fetch(request.messages ? "v1/chat/completions" : "v1/completions", {
      method: "POST", signal, headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...body, stream: true }),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw problem("unreachable");
  }
  if (!answer.ok) throw problem("failed", { reason: (await answer.json()).error.message });
  let held = "";
  for await (const part of chunks(answer.body.pipeThrough(new TextDecoderStream()))) {
    const events = (held + part).split("\n\n");
    held = events.pop();
    for (const event of events) {
      if (event.startsWith(": queue ")) onPlace(Number(event.slice(8)));
      if (!event.startsWith("data: {")) continue;
      const data = JSON.parse(event.slice(6));
      if (data.error) throw problem("failed", { reason: data.error.message });
      onData({ choices: data.choices.map(form) });
    }
  }
}

// A function that puts a choice of one answer into the form of a completion's; characters before a token are counted by
// the bytes of those before it.
function chatForm() {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let offset = 0;
  return ({ index, delta, finish_reason, logprobs }) => {
    const content = logprobs?.content ?? [];
    return {
      index, finish_reason, text: delta.content ?? "",
      logprobs: {
        tokens: content.map(({ token }) => token),
        token_logprobs: content.map(({ logprob }) => logprob),
        top_logprobs: content.map((one) => Object.fromEntries(one.top_logprobs.map(({ token, logprob }) => [token, logprob]))),
        text_offset: content.map(({ bytes }) => {
          const before = offset;
          offset += [...decoder.decode(Uint8Array.from(bytes), { stream: true })].length;
          return before;
        }),
      },
    };
  };
}

// Safari's streams are not iterable yet.
async function* chunks(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}
