// A request as code: for Python, curl and the command line.

import { $ } from "./common.js";

const IDLE_IF_GREEDY = ["top_k", "top_p", "min_p", "seed"]; // what the command line refuses with temperature 0

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

const CODE = {
  python: ({ model, prompt, max_tokens, temperature, top_p, seed, stop, ...rest }) => [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${location.origin}/v1`)}, api_key="none")`,
    "stream = client.completions.create(",
    `    model=${JSON.stringify(model)},`,
    `    prompt=${JSON.stringify(prompt)},`,
    `    max_tokens=${max_tokens}, temperature=${temperature}, top_p=${top_p}, seed=${seed},`,
    ...(stop ? [`    stop=${JSON.stringify(stop)},`] : []),
    `    extra_body={"top_k": ${rest.top_k}, "min_p": ${rest.min_p}, "repetition_penalty": ${rest.repetition_penalty}${
      rest.at_start === false ? ', "at_start": False' : ""}},`,
    "    stream=True,",
    ")",
    "for chunk in stream:",
    '    print(chunk.choices[0].text, end="", flush=True)',
  ].join("\n"),
  curl: (request) =>
    `curl ${location.origin}/v1/completions -H 'content-type: application/json' \\\n  -d ${quoted(JSON.stringify(request))}`,
  command: ({ model, prompt, max_tokens, stop, n, ...rest }) => [
    `mamegpt generate --model ${quoted(model)} --prompt ${quoted(prompt)} --max-new-tokens ${max_tokens}`,
    ...Object.entries(rest)
      .filter(([name]) => rest.temperature > 0 || !IDLE_IF_GREEDY.includes(name))
      .map(([name, value]) => `  --${name.replaceAll("_", "-")} ${value === false ? "False" : value}`),
    ...(stop ? [`  --stop $${quoted(stop[0].replaceAll("\\", "\\\\").replaceAll("\n", "\\n"))}`] : []),
  ].join(" \\\n"),
};

export function showCode(request) {
  const show = () => {
    const kind = document.querySelector("[name=kind]:checked").value;
    $("code").querySelector("pre").textContent = CODE[kind](request);
  };
  for (const radio of document.getElementsByName("kind")) radio.onchange = show;
  show();
  $("code").showModal();
}
