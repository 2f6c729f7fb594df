"""What others take: the smallest programs that print a stored token, as each peer's documentation has it."""

import datetime
import json
import subprocess

from setting import CACHE, HERE, Command, environment, execute

# What each needs for its with_*.py, and what is to be known of it.
PEERS = {
    "msal": (["msal"], "asks for the metadata each time, here on the same machine"),
    "google-auth-oauthlib": (["google-auth-oauthlib"], ""),
    "authlib": (["authlib", "requests"], "the file is the program's own"),
    "requests-oauthlib": (["requests-oauthlib"], "the file is the program's own"),
    "oauth2-cli-auth": (["oauth2-cli-auth"], "keeps no token: the file is the program's own"),
    "requests-auth": (["requests-auth"], ""),
    "mutt_oauth2": ([], "Debian's, with `cat` in the place of gpg"),
}


def programs(setting):
    """Those that can be had, with the number of their requests and a remark; for the others, why not."""
    record = json.loads(next((setting.folder / "home").glob("*.json")).read_text())
    response = {**record["token"], "expires_at": record["expires_at"]}
    for name, (requirements, remark) in PEERS.items():
        try:
            folder = setting.folder / name
            folder.mkdir()
            (folder / "response.json").write_text(json.dumps(response))
            if requirements:
                command = with_package(setting, name, requirements)
            else:
                command = with_mutt(setting, response)
            setting.provider.requests()
            setting.run(command)
            yield command, len(setting.provider.requests()), remark
        except (OSError, RuntimeError, StopIteration, subprocess.SubprocessError) as error:
            why = (getattr(error, "stderr", None) or str(error) or type(error).__name__).strip().splitlines()
            print(f"left out: {name} ({why[-1]})\n")


def with_package(setting, name, requirements):
    """It gets the response, and keeps it in its own way."""
    python = environment(name, setting.python, HERE / "requirements.txt", *requirements)
    program = [python, str(HERE / f"with_{name}.py"), setting.provider.issuer, setting.provider.ca_file]
    setting.run(Command(name, [*program, "save"], cwd=name))
    return Command(name, program, cwd=name)


def with_mutt(setting, response):
    """Its text wants other pipes than gpg's to be named in it."""
    package, folder = CACHE / "mutt", setting.folder / "mutt_oauth2"
    package.mkdir(parents=True, exist_ok=True)
    if not list(package.glob("*.deb")):
        execute("apt-get", "download", "mutt", cwd=package)
    execute("dpkg-deb", "-x", next(package.glob("*.deb")), package)
    script = (package / "usr/share/doc/mutt/examples/mutt_oauth2.py").read_text()
    (folder / "mutt_oauth2.py").write_text(script.replace("['gpg', '--decrypt']", "['cat']"))
    token = folder / "token"
    token.touch(0o600)
    token.write_text(json.dumps({
        "registration": "google", "authflow": "authcode", "access_token": response["access_token"],
        "access_token_expiration": datetime.datetime.fromtimestamp(response["expires_at"]).isoformat()}))
    return Command("mutt_oauth2", [setting.python, "mutt_oauth2.py", "token"], cwd="mutt_oauth2")
