"""Go on with a text, greedily, with a model from the Hugging Face Hub or a local folder.

python generate.py --prompt "こんにちは。最近あった面白いことは、" --max-new-tokens 50
"""

from typing import Literal

import mamegpt


def main(
    prompt: str,
    max_new_tokens: int = 50,
    repo_id: str = "oga5/hf-jp-gpt-wiki",
    spm_file: str = "jp_tok_wiki.model",
    device: Literal["cpu", "cuda"] | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Generate the continuation of a prompt (greedy decoding).

    Args:
        prompt: Prompt.
        max_new_tokens: Maximum number of tokens to generate.
        repo_id: Repository on the Hub, or a local folder.
        spm_file: SentencePiece model inside it.
        device: Where to compute (default: cuda if there is one, else cpu).
        trust_remote_code: Let transformers run Python code from the repository; needed only for a model that
            export_to_hf.py did not write.
    """
    model = mamegpt.load(repo_id, device=device or "auto", spm_file=spm_file, trust_remote_code=trust_remote_code)
    written = model.stream(prompt, max_new_tokens=max_new_tokens, at_start=False)
    mamegpt.show("Using device: {device}", device=model.device.type)
    print()
    mamegpt.show("=== Generation ===")
    mamegpt.show_stream(prompt, written)


if __name__ == "__main__":
    mamegpt.run_command_line(main)
