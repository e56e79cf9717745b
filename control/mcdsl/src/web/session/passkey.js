// Runs the ceremonies of the passkey buttons: requests a challenge, has the authenticator answer it, and sends the answer. Where the
// browser can, passkeys are offered in the username field too, without a button (conditional mediation: WebAuthn Level 3, section 5.1.4).
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

let waiting = null; // The ceremony that waits in the username field.

async function run(element, say, mediation) {
  const { passkey, root } = element.dataset;
  const fields = Object.fromEntries([...element.querySelectorAll("input")].map(({ name, value }) => [name, value]));
  const challenge = await send(`${root}/begin`, { csrf: fields.csrf });
  if (!challenge) return;
  const options = JSON.parse(challenge.options).publicKey;
  if (!mediation) say("Follow the instructions of your browser.");
  const abort = new AbortController();
  if (mediation) waiting = abort;
  const ceremony = { signal: abort.signal, ...(mediation && { mediation }) };
  const credential =
    passkey === "get"
      ? await navigator.credentials.get({ ...ceremony, publicKey: request(options) })
      : await navigator.credentials.create({ ...ceremony, publicKey: creation(options) });
  const done = await send(`${root}/finish`, {
    ...fields, ceremony_id: challenge.ceremony_id, credential: written(credential),
  });
  if (done) location.assign(done.to);
}

// A challenge is valid for five minutes: a new one before that, while somebody looks at the page.
const RENEW_MS = 4 * 60 * 1000;

async function offerInField(element, say) {
  if (!(await PublicKeyCredential.isConditionalMediationAvailable?.())) return;
  const offer = async () => {
    waiting?.abort();
    if (document.hidden) return;
    try {
      await run(element, say, "conditional");
    } catch (error) {
      // Replaced by the button or by a new challenge; or refused by the server, which the form below says too.
      if (!["AbortError", "NotAllowedError"].includes(error.name)) say(error.message);
    }
  };
  const timer = setInterval(offer, RENEW_MS);
  document.addEventListener("visibilitychange", () => document.hidden || waiting || offer());
  element.addEventListener("click", () => clearInterval(timer), { once: true });
  await offer();
}

for (const element of document.querySelectorAll("[data-passkey]")) {
  const button = element.querySelector("button");
  const status = element.querySelector("[role=status]");
  const say = (text) => (status.textContent = text);
  if (!window.PublicKeyCredential) {
    say("This browser does not support passkeys.");
    continue;
  }
  button.disabled = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    waiting?.abort();
    try {
      await run(element, say);
    } catch (error) {
      const cancelled = error.name === "NotAllowedError";
      say(cancelled ? "Cancelled, or no passkey for this site on this device." : error.message);
      button.disabled = false;
    }
  });
  if (element.dataset.passkey === "get") offerInField(element, say);
}
