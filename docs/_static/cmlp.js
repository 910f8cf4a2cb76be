// What the theme leaves to do for keyboards and screen readers.
addEventListener("DOMContentLoaded", () => {
  for (const part of document.querySelectorAll(".bd-article :is(table, math, pre, div.math)")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0; // it scrolls by the arrow keys
  }
  for (const link of document.querySelectorAll(".sphx-glr-thumbcontainer a")) {
    link.setAttribute("aria-label", link.textContent); // the style sheet hides the text
  }
  for (const summary of document.querySelectorAll(".bd-sidebar summary")) {
    const entry = summary.closest("li")?.querySelector("a");
    summary.setAttribute("aria-label", `Pages below ${entry?.textContent.trim() ?? "this one"}`);
  }
});
