"use strict";
// Enlarges a picture, or turns a body in the viewer that the page carries once. A link such as #turn-3 opens a view.
const dialog = document.querySelector("dialog"), stage = dialog.querySelector(".large");

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).blob();
}

async function base64(blob) {
  const reader = new FileReader();
  await new Promise((done) => { reader.onload = done; reader.readAsDataURL(blob); });
  return reader.result.slice(reader.result.indexOf(",") + 1);
}

async function turn(button) {
  const page = await (await unpack(document.getElementById("viewer").textContent)).text();
  const body = await base64(await unpack(button.dataset.scene));
  const frame = document.createElement("iframe");
  frame.title = button.dataset.title;
  frame.setAttribute("sandbox", "allow-scripts");
  frame.srcdoc = page.replace(document.getElementById("viewer").dataset.mark, body);
  stage.replaceChildren(frame);
}

function open(button) {
  dialog.querySelector("h2").textContent = button.dataset.title;
  stage.replaceChildren();
  dialog.showModal();
  if (!button.dataset.scene) stage.append(...[...button.children].map((one) => one.cloneNode(true)));
  else if (!("DecompressionStream" in window)) stage.textContent = "This browser is too old to unpack the 3D view.";
  else turn(button);
}

function follow() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.matches("button.tile")) open(target);
}

for (const button of document.querySelectorAll("button.tile")) button.addEventListener("click", () => open(button));
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
// The event comes late: by then another tile may be open.
dialog.addEventListener("close", () => { if (!dialog.open) stage.replaceChildren(); });
addEventListener("hashchange", follow);
follow();
