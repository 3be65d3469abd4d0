// A request as code: for Python, curl and the command line.

import { $ } from "./common.js";

const IDLE_IF_GREEDY = ["top_k", "top_p", "min_p", "seed"]; // what the command line refuses with temperature 0

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

const CODE = {
  python: ({ model, prompt, messages, max_tokens, temperature, top_p, seed, stop, ...rest }) => [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${location.origin}/v1`)}, api_key="none")`,
    `stream = client.${messages ? "chat.completions" : "completions"}.create(`,
    `    model=${JSON.stringify(model)},`,
    ...(messages
      ? ["    messages=[", ...messages.map((message) => `        ${JSON.stringify(message)},`), "    ],"]
      : [`    prompt=${JSON.stringify(prompt)},`]),
    `    max_tokens=${max_tokens}, temperature=${temperature}, top_p=${top_p}, seed=${seed},`,
    ...(stop ? [`    stop=${JSON.stringify(stop)},`] : []),
    `    extra_body={"top_k": ${rest.top_k}, "min_p": ${rest.min_p}, "repetition_penalty": ${rest.repetition_penalty}${
      rest.at_start === false ? ', "at_start": False' : ""}},`,
    "    stream=True,",
    ")",
    "for chunk in stream:",
    `    print(chunk.choices[0].${messages ? 'delta.content or ""' : "text"}, end="", flush=True)`,
  ].join("\n"),
  curl: (request) => [
    `curl ${location.origin}/v1/${request.messages ? "chat/" : ""}completions -H 'content-type: application/json' \\`,
    `  -d ${quoted(JSON.stringify(request))}`,
  ].join("\n"),
  command: ({ model, prompt, messages, max_tokens, stop, n, ...rest }) => [
    `mamegpt ${messages ? "chat" : "generate"} --model ${quoted(model)} --prompt ${
      quoted(messages ? messages[0].content : prompt)} --max-new-tokens ${max_tokens}`,
    ...Object.entries(rest)
      .filter(([name]) => rest.temperature > 0 || !IDLE_IF_GREEDY.includes(name))
      .map(([name, value]) => `  --${name.replaceAll("_", "-")} ${value === false ? "False" : value}`),
    ...(stop ? [`  --stop $${quoted(stop[0].replaceAll("\\", "\\\\").replaceAll("\n", "\\n"))}`] : []),
  ].join(" \\\n"),
};

// A chat of several turns has no command: mamegpt chat would answer each question itself.
export function showCode(request) {
  const radios = [...document.getElementsByName("kind")];
  radios.at(-1).closest("label").hidden = request.messages?.length > 1;
  if (radios.find(({ checked }) => checked).closest("label").hidden) radios[0].checked = true;
  const show = () => {
    $("code").querySelector("pre").textContent = CODE[radios.find(({ checked }) => checked).value](request);
  };
  for (const radio of radios) radio.onchange = show;
  show();
  $("code").showModal();
}
