"""mistral.rs: the folder of ``hf``. It takes and gives text."""

from collections.abc import Callable
from pathlib import Path

from measure import Encode, run
from mistralrs import Architecture, CompletionRequest, ModelDType, Runner, Which


def load(folder: str) -> tuple[Callable[[str, int], str], Encode]:
    """Return completions in float32, and the tokenizer."""
    which = Which.Plain(
        folder, arch=Architecture.Qwen3, tokenizer_json=str(Path(folder, "tokenizer.json")), dtype=ModelDType.F32
    )
    runner = Runner(which, no_paged_attn=True, prefix_cache_n=0)

    def continued(prompt: str, n_new: int) -> str:
        request = CompletionRequest(prompt, "default", max_tokens=n_new, temperature=0.0, top_k=1)
        return runner.send_completion_request(request).choices[0].text

    def encode(texts: list[str], _: list[str]) -> list[list[int]]:
        return [runner.tokenize_text(text, False, None) for text in texts]

    return continued, encode


run("hf", load, prompts="prompt_texts")
