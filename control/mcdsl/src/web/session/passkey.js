// Runs the ceremonies of the passkey buttons: requests a challenge, has the authenticator answer it, and sends the answer.
"use strict";

const toBytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const toText = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

// For browsers without parseCreationOptionsFromJSON and toJSON (WebAuthn Level 3, section 5.1).
function creation(options) {
  if (PublicKeyCredential.parseCreationOptionsFromJSON) return PublicKeyCredential.parseCreationOptionsFromJSON(options);
  const descriptors = (list) => (list ?? []).map((entry) => ({ ...entry, id: toBytes(entry.id) }));
  return {
    ...options,
    challenge: toBytes(options.challenge),
    user: { ...options.user, id: toBytes(options.user.id) },
    excludeCredentials: descriptors(options.excludeCredentials),
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

const logIn = () => location.assign(`/login?next=${toText(new TextEncoder().encode(location.pathname + location.search))}`);

// The response as JSON; nothing where the browser goes to the login page instead.
async function send(path, fields) {
  const response = await fetch(path, { method: "POST", body: new URLSearchParams(fields) });
  const isJson = (response.headers.get("content-type") ?? "").includes("json");
  if (!isJson) throw new Error(`The server answered with status ${response.status}. Reload the page and try again.`);
  const message = await response.json();
  if (response.ok) return message;
  if (["unauthenticated", "fresh-login-required"].includes(message.reason)) return logIn();
  throw new Error(message.detail);
}

async function run(element, say) {
  const { passkey, root } = element.dataset;
  const fields = Object.fromEntries([...element.querySelectorAll("input")].map(({ name, value }) => [name, value]));
  const challenge = await send(`${root}/begin`, { csrf: fields.csrf });
  if (!challenge) return;
  const options = JSON.parse(challenge.options).publicKey;
  say("Follow the instructions of your browser.");
  const credential =
    passkey === "get"
      ? await navigator.credentials.get({ publicKey: request(options) })
      : await navigator.credentials.create({ publicKey: creation(options) });
  const done = await send(`${root}/finish`, {
    ...fields, ceremony_id: challenge.ceremony_id, credential: written(credential),
  });
  if (done) location.assign(done.to);
}

for (const element of document.querySelectorAll("[data-passkey]")) {
  const button = element.querySelector("button");
  const status = element.querySelector("[role=status]");
  const say = (text) => (status.textContent = text);
  if (!window.PublicKeyCredential) {
    say("This browser does not support passkeys.");
    continue;
  }
  say("");
  button.disabled = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await run(element, say);
    } catch (error) {
      const cancelled = error.name === "NotAllowedError";
      say(cancelled ? "Cancelled, or no passkey for this site on this device." : error.message);
      button.disabled = false;
    }
  });
}
