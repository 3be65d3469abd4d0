"""Cut a topic out of a data set: the articles with a keyword, in one text file, each headed 【title】.

python make_dataset.py --dataset fujiki/wiki40b_ja --split train --keyword "ファミコン" --out output_with_titles.txt
"""

from pathlib import Path

import mamegpt


def main(
    keyword: str,
    dataset: str = "fujiki/wiki40b_ja",
    split: str = "train",
    out: Path = Path("output_with_titles.txt"),
) -> None:
    """Write the articles that mention a keyword into one text file, each as 【title】 and its text.

    Args:
        keyword: Word to look for in title and text; width and case do not matter (ﾌｧﾐｺﾝ finds ファミコン).
        dataset: Dataset on the Hub, or a local file or folder (parquet, jsonl, txt).
        split: Split of the dataset.
        out: Text file to write; one that is there is replaced when the new one is complete.
    """
    mamegpt.show(mamegpt.extract(dataset, keyword, out, split=split, overwrite=True))


if __name__ == "__main__":
    mamegpt.run_command_line(main)
