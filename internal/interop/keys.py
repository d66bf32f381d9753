"""Puts the issuer's public keys, a JSON list on stdin, where scitokens looks before it asks the issuer."""

import json
import sys

from cryptography.hazmat.backends import default_backend
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from scitokens.utils.keycache import KeyCache

for key in json.load(sys.stdin):
    public = load_pem_public_key(key["pem"].encode(), backend=default_backend())
    KeyCache().addkeyinfo(key["issuer"], key["id"], public, cache_timer=86400, next_update=3600)
