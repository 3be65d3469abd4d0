"""Fetch Wiki-40B Japanese (or another data set) from the Hugging Face Hub into the cache.

python download_dataset.py
"""

from mamegpt.cli import run
from mamegpt.commands import download

if __name__ == "__main__":
    run(download)
