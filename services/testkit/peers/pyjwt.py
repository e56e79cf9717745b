"""Checks a token by PyJWT with the keys that MCIAS publishes.

Arguments: address of the key set, file of the authority, the issuer, the token. Prints the claims, or what PyJWT says.
"""

import json
import ssl
import sys

import jwt

keys, authority, issuer, token = sys.argv[1:]
client = jwt.PyJWKClient(keys, ssl_context=ssl.create_default_context(cafile=authority))
try:
    key = client.get_signing_key_from_jwt(token)
    claims = jwt.decode(
        token,
        key.key,
        algorithms=["EdDSA"],
        audience="mcias",
        issuer=issuer,
        options={"require": ["exp", "iat", "nbf", "sub", "jti"]},
    )
    print(json.dumps({"claims": claims, "kid": key.key_id, "header": jwt.get_unverified_header(token)}))
except jwt.PyJWTError as error:
    print(json.dumps({"refused": f"{type(error).__name__}: {error}"}))
