"""Settings of the documentation site; `nox -s docs` builds it, without network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent)]
# What an example starts must find this checkout too.
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
    # In docs/extensions.
    "gradients",
    "mathml",
    "parameter_groups",
    "repository",
]
exclude_patterns = [
    "_build",
    "extensions",
    "gallery",
    "jobs",
    "paper.md",  # The draft for a journal, which builds it.
    "templates",
    "**/README.rst",
    "sg_execution_times.rst",
    "examples/sg_execution_times.rst",  # They load scripts from other sites.
]

# Pages are Markdown, with links to headings as GitHub names them.
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # A page that is included begins at another level.

# Docstrings are numpydoc. A name in backticks becomes a link where the site has it.
default_role = "autolink"
smartquotes = False  # A value such as "relu" can be copied.
# Values of class variables are of private modules, which the site leaves out.
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
    # In docs/extensions.
    "within_subsection_order": "gallery.ReadingOrder",
    "reset_modules": ("matplotlib", "gallery.check_example"),
    "reset_modules_order": "both",
    "backreferences_dir": None,
    "download_all_examples": False,
    "min_reported_time": 60,  # Seconds; told, and no error.
    "show_memory": False,
    "remove_config_comments": True,
    "matplotlib_animations": False,
    "image_scrapers": ("matplotlib",),
    "abort_on_example_error": False,
    "capture_repr": (),  # What an example prints is shown, and not the address of an object.
}

html_theme = "pydata_sphinx_theme"
html_title = "mlp_xp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_sidebars = {
    "index": [],
    "how-it-works": [],
    "quickstart": [],
    "faq": [],
    "features": [],  # Its tables have seven columns.
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
# No file of others is fetched, and what is outside is looked up by `nox -s links` alone.
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_anchors = False
