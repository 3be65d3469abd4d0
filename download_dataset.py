"""Fetch Wiki-40B Japanese (or another data set) from the Hugging Face Hub into the cache.

python download_dataset.py
"""

from pathlib import Path

import mamegpt


def main(dataset: str = "fujiki/wiki40b_ja", cache_dir: Path | None = None) -> None:
    """Fetch a dataset from the Hugging Face Hub into the cache, and show its files and place.

    Args:
        dataset: Dataset on the Hub, owner/name.
        cache_dir: Folder of the cache (default: the one all Hugging Face libraries share).
    """
    mamegpt.show(mamegpt.download(dataset, cache_dir))


if __name__ == "__main__":
    mamegpt.run_command_line(main)
