"""msal, after the recipe in its SerializableTokenCache; a provider but Microsoft is an oidc_authority."""

import atexit
import json
import os
import sys

import msal

issuer, ca_file = sys.argv[1:3]
cache = msal.SerializableTokenCache()
if os.path.exists("cache.bin"):
    with open("cache.bin") as file:
        cache.deserialize(file.read())


@atexit.register
def save():
    if cache.has_state_changed:
        with open("cache.bin", "w") as file:
            file.write(cache.serialize())


authority = issuer + "/tenant"
app = msal.PublicClientApplication("demo", oidc_authority=authority, token_cache=cache, verify=ca_file)
if sys.argv[3:] == ["save"]:
    with open("response.json") as file:
        result = app.acquire_token_by_refresh_token(json.load(file)["refresh_token"], ["email"])
else:
    result = app.acquire_token_silent(["email"], account=app.get_accounts()[0])
print(result["access_token"])
