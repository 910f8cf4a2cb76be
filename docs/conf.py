"""The site: ``python -m sphinx -W -n -b html docs build/html``, after ``pip install '.[docs]'``."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cmlp

project = "cmlp"
author = "the authors of cmlp"
copyright = "the authors of cmlp, MIT licence"
release = version = cmlp.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "sphinx_design",
    "sphinx_copybutton",
    "pages_from_elsewhere",
    "mathml",
    "shared_parameters",
    "llms",
]
exclude_patterns = ["_ext", "_templates", "examples", "**sg_execution_times.rst"]
templates_path = ["_templates"]
root_doc = "index"
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(numpy|np|pandas|polars|scipy|torch|keras|sklearn)\..*")]

# Pages in Markdown
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 4

# Reference
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
python_use_unqualified_type_names = True

# Gallery
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,  # their table loads scripts of another host
    "show_signature": False,
    "min_reported_time": 1,
    "image_scrapers": ("matplotlib",),
    "matplotlib_animations": False,
    "remove_config_comments": True,
    "reference_url": {"cmlp": None},
    "backreferences_dir": "api/examples",
    "doc_module": ("cmlp",),
    "copyfile_regex": "",
}

# Appearance; no font, script or inventory comes from elsewhere
html_theme = "pydata_sphinx_theme"
html_title = "cmlp"
html_static_path = ["_static"]
html_css_files = ["cmlp.css"]
html_js_files = ["cmlp.js"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"404": []}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
