"""CTranslate2: the folder of ``hf``, converted by its own converter (which needs transformers and PyTorch)."""

import tempfile
from pathlib import Path

import ctranslate2
import sentencepiece
from measure import Continue, Encode, run


def load(folder: str) -> tuple[Continue, Encode]:
    """Return ``generate_batch`` on one thread, and SentencePiece: CTranslate2 takes tokens as strings."""
    (pieces_file,) = Path(folder).glob("*.model")
    pieces = sentencepiece.SentencePieceProcessor(str(pieces_file))
    converted = Path(tempfile.mkdtemp(), "converted")
    ctranslate2.converters.TransformersConverter(folder).convert(str(converted))
    generator = ctranslate2.Generator(str(converted), compute_type="float32", inter_threads=1, intra_threads=1)

    def continued(ids: list[int], n_new: int) -> list[int]:
        tokens = [pieces.id_to_piece(ids)]
        options = {"include_prompt_in_result": False, "end_token": [], "return_end_token": True}
        return generator.generate_batch(tokens, max_length=n_new, **options)[0].sequences_ids[0]

    def encode(_: list[str], normalized: list[str]) -> list[list[int]]:
        return pieces.encode(normalized)

    return continued, encode


run("hf", load)
