// The page in a browser: the token leaves the address, then the page begins.

import { start } from "./app.js";
import { socketTransport } from "./wire.js";

const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.get("token")) sessionStorage.setItem("cmlp-token", fragment.get("token"));
const link = fragment.get("setup");
history.replaceState(null, "", link ? `#setup=${link}` : location.pathname);

const app = start(document.getElementById("app"), () => socketTransport(sessionStorage.getItem("cmlp-token") || ""), { link });

// what is put after the address of this page: a set-up, or a token where one was missing
addEventListener("hashchange", () => {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.get("token")) location.reload();
  else app.use(given.get("setup"));
});
