"""How the pages in docs/ become a site: ``make docs``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mamegpt import __version__

project = "豆GPT (mamegpt)"
author = "the mamegpt authors"
release = __version__
language = "ja"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
html_copy_source = html_show_sourcelink = False
html_theme_options = {"top_of_page_buttons": []}
myst_heading_anchors = 3
default_role = "py:obj"  # `name` in a docstring is a name of ours, and a link where there is one
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
