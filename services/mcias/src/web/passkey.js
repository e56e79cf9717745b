// Brings the passkey buttons to life: asks for a challenge, has the authenticator answer it, and sends the answer.
"use strict";

const toBytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const toText = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

// What browsers without parseCreationOptionsFromJSON and toJSON do not do themselves (WebAuthn Level 3, section 5.1).
function creation(options) {
  if (PublicKeyCredential.parseCreationOptionsFromJSON) return PublicKeyCredential.parseCreationOptionsFromJSON(options);
  const known = (list) => (list ?? []).map((entry) => ({ ...entry, id: toBytes(entry.id) }));
  return {
    ...options,
    challenge: toBytes(options.challenge),
    user: { ...options.user, id: toBytes(options.user.id) },
    excludeCredentials: known(options.excludeCredentials),
  };
}

function request(options) {
  if (PublicKeyCredential.parseRequestOptionsFromJSON) return PublicKeyCredential.parseRequestOptionsFromJSON(options);
  return { ...options, challenge: toBytes(options.challenge), allowCredentials: [] };
}

function written(credential) {
  if (credential.toJSON) return JSON.stringify(credential.toJSON());
  const { response } = credential;
  const parts = ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"];
  const answer = {};
  for (const part of parts) if (response[part]) answer[part] = toText(response[part]);
  return JSON.stringify({
    id: credential.id,
    rawId: toText(credential.rawId),
    type: credential.type,
    response: answer,
    clientExtensionResults: credential.getClientExtensionResults(),
  });
}

async function send(path, fields) {
  const answer = await fetch(path, { method: "POST", body: new URLSearchParams(fields) });
  const kind = answer.headers.get("content-type") ?? "";
  if (answer.ok && kind.includes("json")) return answer.json();
  if (kind.includes("json")) throw new Error((await answer.json()).detail);
  throw new Error(answer.redirected ? "Log in once more, then try again." : "That did not work: load the page again.");
}

async function run(place, say) {
  const { passkey, csrf, next } = place.dataset;
  const root = passkey === "login" ? "/login/passkey" : "/security/passkeys";
  const challenge = await send(`${root}/begin`, { csrf });
  const options = JSON.parse(challenge.options).publicKey;
  say("Your browser asks you now.");
  const credential =
    passkey === "login"
      ? await navigator.credentials.get({ publicKey: request(options) })
      : await navigator.credentials.create({ publicKey: creation(options) });
  const fields = { csrf, ceremony_id: challenge.ceremony_id, credential: written(credential), next: next ?? "" };
  const label = place.querySelector("input[name=label]");
  if (label) fields.label = label.value;
  const { to } = await send(`${root}/finish`, fields);
  location.assign(to);
}

for (const place of document.querySelectorAll("[data-passkey]")) {
  const button = place.querySelector("button");
  const status = place.querySelector("[role=status]");
  const say = (text) => (status.textContent = text);
  if (!window.PublicKeyCredential) {
    say("This browser knows no passkeys.");
    continue;
  }
  say("");
  button.disabled = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await run(place, say);
    } catch (error) {
      const given_up = error.name === "NotAllowedError";
      say(given_up ? "It was cancelled, or there is no passkey for this site." : error.message);
      button.disabled = false;
    }
  });
}
