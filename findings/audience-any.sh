#!/usr/bin/env bash
# igwn-auth-utils 1.4.0 on scitokens 1.9.7: asked for the audience "ANY", it refuses the tokens whose audience is "ANY".
#
# A token for "ANY" is good for every audience, and the documented type of the audience to accept is a string or a list.
# As a string every audience works but this one: given "ANY", no token is valid, not even one for ANY, while the list
# ["ANY"] takes it. The warning names the token's value as the one that was rejected.
#
# Seen (the token has aud ANY and the scope gracedb.read, and is asked for both):
#   https://gracedb.test: True
#   ANY: False, Validator rejected value of 'ANY' for claim 'aud'
#   ['ANY']: True
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
token = jwt.encode(
    {"iss": "https://issuer.test", "sub": "albert", "aud": "ANY", "iat": now, "nbf": now,
     "exp": now + 3600, "jti": "1", "ver": "scitoken:2.0", "scope": "gracedb.read"},
    pem, algorithm="ES256", headers={"kid": "k"})
for audience in "https://gracedb.test", "ANY", ["ANY"]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        valid = is_valid_token(token, audience, "gracedb.read", warn=True)
    print(", ".join([f"{audience}: {valid}"] + [str(w.message) for w in said]))
EOP
XDG_CACHE_HOME="$work/cache" "$work/venv/bin/python" "$work/ask.py" | tee "$work/seen"
diff "$work/seen" - <<'EOP'
https://gracedb.test: True
ANY: False, Validator rejected value of 'ANY' for claim 'aud'
['ANY']: True
EOP
