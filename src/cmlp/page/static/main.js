// The page in a browser: the token leaves the address, then the page begins.

import { start } from "./app.js";
import { socketTransport } from "./wire.js";

const KEPT = "cmlp-kept"; // the set-up of this tab, for when it is loaded again
const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.get("token")) {
  sessionStorage.setItem("cmlp-token", fragment.get("token"));
  sessionStorage.removeItem(KEPT);
}
let link = fragment.get("setup");
history.replaceState(null, "", link ? `#setup=${link}` : location.pathname);
const [from, kept] = JSON.parse(sessionStorage.getItem(KEPT) || "[]");

const app = start(document.getElementById("app"), () => socketTransport(sessionStorage.getItem("cmlp-token") || ""), {
  link, kept: from === link ? kept : null,
  keep(setup) { try { sessionStorage.setItem(KEPT, JSON.stringify([link, setup])); } catch { /* full: nothing is kept */ } },
});

// what is put after the address of this page: a set-up, or a token where one was missing
addEventListener("hashchange", () => {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.get("token")) location.reload();
  else app.use(link = given.get("setup"));
});
