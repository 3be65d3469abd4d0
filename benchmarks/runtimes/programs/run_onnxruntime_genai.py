"""onnxruntime-genai: the folder of ``onnx``, which has its ``genai_config.json``."""

from pathlib import Path

import onnxruntime_genai
from measure import Continue, Encode, encode_with, run


def load(folder: str) -> tuple[Continue, Encode]:
    """Return a greedy generator on one thread, which ends with the text, and ``tokenizers``."""
    config = onnxruntime_genai.Config(folder)
    config.overlay('{"model": {"decoder": {"session_options": {"intra_op_num_threads": 1}}}}')
    model = onnxruntime_genai.Model(config)

    def continued(ids: list[int], n_new: int) -> list[int]:
        params = onnxruntime_genai.GeneratorParams(model)
        params.set_search_options(max_length=len(ids) + n_new, do_sample=False)
        generator = onnxruntime_genai.Generator(model, params)
        generator.append_tokens(ids)
        new = []
        while not generator.is_done():
            generator.generate_next_token()
            new.append(int(generator.get_next_tokens()[0]))
        return new

    return continued, encode_with(Path(folder, "tokenizer.json"))


run("onnx", load)
