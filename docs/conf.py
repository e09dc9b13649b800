"""Settings of the documentation site; `nox -s docs` builds it, without network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent)]
# Processes that examples start must also import this checkout.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")])
)

import mlp_xp

project = "mlp_xp"
author = "The mlp_xp developers"
project_copyright = author
version = release = mlp_xp.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "gradients",  # This and the next three are in docs/extensions.
    "mathml",
    "parameter_groups",
    "repository",
]
exclude_patterns = [
    "_build",
    "extensions",
    "gallery",
    "jobs",
    "paper.md",  # A journal builds this draft.
    "templates",
    "**/README.rst",
    "sg_execution_times.rst",
    "examples/sg_execution_times.rst",  # This page would load scripts from other sites.
]

# Pages are Markdown, with links to headings as GitHub names them.
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # Included pages begin at another heading level.

# Names in backticks in docstrings become links if the site documents them.
default_role = "autolink"
smartquotes = False  # Readers can then copy values such as "relu".
# The site does not document private modules, so references to their classes are not found.
nitpick_ignore_regex = [("py:obj", ".*"), ("py:class", r"mlp_xp\..*\._.*")]
autodoc_typehints = "none"
autodoc_member_order = "groupwise"
autosummary_generate = True
templates_path = ["templates"]
numpydoc_show_class_members = False
numpydoc_use_plots = False
add_module_names = False
toc_object_entries_show_parents = "hide"

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "filename_pattern": "/plot_",
    "within_subsection_order": "gallery.ReadingOrder",
    "reset_modules": ("matplotlib", "gallery.check_example"),
    "reset_modules_order": "both",
    "backreferences_dir": None,
    "download_all_examples": False,
    "min_reported_time": 60,  # Seconds; slower examples are reported, but are not an error.
    "show_memory": False,
    "remove_config_comments": True,
    "matplotlib_animations": False,
    "image_scrapers": ("matplotlib",),
    "abort_on_example_error": False,
    "capture_repr": (),  # Show printed output, but not the repr of the last expression.
}

html_theme = "pydata_sphinx_theme"
html_title = "mlp_xp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_search_scorer = str(HERE / "extensions" / "search_scorer.js")
html_sidebars = {
    "index": [],
    "how-it-works": [],
    "quickstart": [],
    "faq": [],
    "features": [],  # Tables with seven columns need the width.
    "migrate": [],
    "cli": [],
    "changelog": [],
    "contributing": [],
}
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 9,
    "show_toc_level": 2,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
# Builds need no network; only `nox -s links` checks external links.
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_anchors = False
