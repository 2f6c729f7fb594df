"""requests-oauthlib, whose documentation has the program keep the token; here it looks at its end too."""

import json
import sys
import time

from requests_oauthlib import OAuth2Session

with open("response.json") as file:
    token = json.load(file)
session = OAuth2Session("demo", token=token)
if session.token["expires_at"] < time.time() + 60:
    token = session.refresh_token(sys.argv[1] + "/token", client_id="demo")
    with open("response.json", "w") as file:
        json.dump(token, file)
print(session.access_token)
