#!/usr/bin/env bash
# igwn-auth-utils 1.4.0 on scitokens 1.9.7: the order of the words in a token's scope decides whether it is valid.
#
# A token with the scope "gracedb.read read" has the scope gracedb.read; one with "read gracedb.read", the same two in
# another order, has not, and neither error nor return value tells them apart from a token that lacks the scope. The
# words are looked at one after another until one fits; "read" is a SciTokens word that wants a path ("read:/data"), and
# without one it refuses the whole token, though only if it is met before the word that was asked for.
#
# Seen (the verdict for audience and scope that the token has, by order of the words):
#   gracedb.read read: True
#   read gracedb.read: False, Token contains an authorization requiring a resource(path), but no path is present
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check igwn-auth-utils==1.4.0 scitokens==1.9.7 PyJWT==2.15.1 cryptography==50.0.2
cat >"$work/ask.py" <<'EOP'
import time
import warnings

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from igwn_auth_utils.scitokens import is_valid_token
from scitokens.utils.keycache import KeyCache
import jwt

key = ec.generate_private_key(ec.SECP256R1())
pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
KeyCache().addkeyinfo("https://issuer.test", "k", key.public_key(), 3600)  # so that nobody asks the issuer
now = int(time.time())
for scope in "gracedb.read read", "read gracedb.read":
    token = jwt.encode(
        {"iss": "https://issuer.test", "sub": "albert", "aud": "https://gracedb.test", "iat": now, "nbf": now,
         "exp": now + 3600, "jti": "1", "ver": "scitoken:2.0", "scope": scope},
        pem, algorithm="ES256", headers={"kid": "k"})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        valid = is_valid_token(token, "https://gracedb.test", "gracedb.read", warn=True)
    print(", ".join([f"{scope}: {valid}"] + [str(w.message) for w in said]))
EOP
XDG_CACHE_HOME="$work/cache" "$work/venv/bin/python" "$work/ask.py" | tee "$work/seen"
diff "$work/seen" - <<'EOP'
gracedb.read read: True
read gracedb.read: False, Token contains an authorization requiring a resource(path), but no path is present
EOP
