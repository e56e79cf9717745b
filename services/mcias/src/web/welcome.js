// Takes the secret of a setup link out of the address, where the browser alone has it (RFC 9110, section 7.1), and sends it as a form.
"use strict";

const form = document.querySelector("form[action='/welcome']");
const secret = location.hash.slice(1);
if (form && secret) {
  history.replaceState(null, "", location.pathname);
  form.elements.secret.value = secret;
  form.submit();
}
