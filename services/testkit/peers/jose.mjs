// Checks a token by the npm package jose with the keys that MCIAS publishes.
//
// Arguments: address of the key set, the issuer, the token. The authority is in NODE_EXTRA_CA_CERTS.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.env.MC_NODE, "package.json"));
const { createRemoteJWKSet, jwtVerify } = await import(pathToFileURL(require.resolve("jose")));

const [keys, issuer, token] = process.argv.slice(2);
try {
  const { payload, protectedHeader } = await jwtVerify(token, createRemoteJWKSet(new URL(keys)), {
    issuer,
    audience: "mcias",
    typ: "at+jwt",
    algorithms: ["EdDSA"],
  });
  console.log(JSON.stringify({ claims: payload, header: protectedHeader }));
} catch (error) {
  console.log(JSON.stringify({ refused: `${error.code}: ${error.message}` }));
}
