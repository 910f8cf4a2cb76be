"""``llms.txt``: the pages of the site with their titles, for programs that read it."""

from pathlib import Path


def write(app, exception):
    """Write the list after the build."""
    if exception is None and app.builder.format == "html":
        titles = app.env.titles
        lines = [f"- [{titles[name].astext()}]({name}.html)" for name in sorted(titles)]
        text = "\n".join([f"# {app.config.project}", "", *lines, ""])
        Path(app.outdir, "llms.txt").write_text(text, encoding="utf-8")


def setup(app):
    """Register with Sphinx."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
