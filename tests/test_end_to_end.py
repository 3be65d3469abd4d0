"""The whole way with the public names: text, tokenizer, training, a model that writes, evaluation, export.

The first test to read. The other folders look at each part by itself.
"""

from dataclasses import replace
from pathlib import Path

import mamegpt


def test_from_text_to_a_model_that_anybody_can_open(tmp_path: Path) -> None:
    # Text: short stories in one file, and what is read of it.
    text = tmp_path / "stories.txt"
    mamegpt.write_stories(text, 300)
    story = next(mamegpt.read_documents(text))
    assert story.title and story.text.count("。") > 3

    # A tokenizer that loses nothing, not even what it has never seen.
    learned = mamegpt.train_tokenizer(mamegpt.read_texts(text), tmp_path / "jp", vocab_size=1000)
    tokenizer = mamegpt.Tokenizer.load(learned.path)
    assert tokenizer.decode(tokenizer.encode("月見町のﾏﾒ😀")) == "月見町のﾏﾒ😀"

    # Training: a small Qwen3, for a few steps.
    config = mamegpt.preset("1m", data=text, tokenizer=learned.path, out=tmp_path / "run", max_steps=40)
    config = replace(config, context_length=64, batch_size=8, precision="fp32", compile="false")
    trained = mamegpt.train(config)
    assert trained.losses[-1] < trained.losses[0] - 1  # nats per token

    # The model writes: a whole text, piece by piece, several texts at once.
    model = mamegpt.load(trained.out)
    written = model.generate("【月見町】", max_new_tokens=20)
    assert "".join(model.stream("【月見町】", max_new_tokens=20)) == written
    assert len(list(model.generate_many(["【春の朝】", "豆"], max_new_tokens=20, temperature=0.7))) == 2

    # How good it is, on the text that was held out.
    quality = mamegpt.evaluate(model).models[0].text["validation"]
    assert trained.quality and abs(quality.bits_per_character - trained.quality.bits_per_character) < 1e-4

    # Exported, loaded again in a process without mamegpt, compared; and loaded here once more.
    exported = mamegpt.export(model, tmp_path / "hf", n_sentences=100)
    assert mamegpt.load(exported.out).generate("【月見町】", max_new_tokens=20) == written
