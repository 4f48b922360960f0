# SPDX-FileCopyrightText: 2026 The vault_redirect authors
# SPDX-License-Identifier: MIT

"""Runs one of Python's clients: `driver.py hvac` or `driver.py requests`.

Reads one request a line, and answers each by one line. See driver.go.
"""

import json
import os
import sys

ADDR, TOKEN, CA = os.environ["VAULT_ADDR"], os.environ["VAULT_TOKEN"], os.environ["VAULT_CACERT"]
CERT = (os.environ["CLIENT_CERT"], os.environ["CLIENT_KEY"])


class Hvac:
    def __init__(self):
        import hvac

        self.hvac = hvac
        self.client = hvac.Client(url=ADDR, token=TOKEN, verify=CA)
        self.kv = self.client.secrets.kv.v2

    def version(self):
        from importlib.metadata import version

        return version("hvac")

    def write(self, q):
        self.kv.create_or_update_secret(path=q["name"], secret={"value": q["value"]}, mount_point="secret")

    def read(self, q):
        return self.kv.read_secret_version(path=q["name"], mount_point="secret")["data"]["data"]["value"]

    def list(self, q):
        return ",".join(self.kv.list_secrets(path=q["name"], mount_point="secret")["data"]["keys"])

    def delete(self, q):
        self.kv.delete_latest_version_of_secret(path=q["name"], mount_point="secret")

    def wrap(self, q):
        wrapped = self.client.read("secret/data/" + q["name"], wrap_ttl="60s")
        return self.client.sys.unwrap(wrapped["wrap_info"]["token"])["data"]["data"]["value"]

    def userpass(self, q):
        answer = self.login().auth.userpass.login(username=q["user"], password=q["password"])
        return answer["auth"]["client_token"]

    def approle(self, q):
        return self.login().auth.approle.login(role_id=q["role_id"], secret_id=q["secret_id"])["auth"]["client_token"]

    def cert(self, q):
        return self.login(cert=CERT).auth.cert.login(name="web", cert_pem=CERT[0], key_pem=CERT[1])["auth"]["client_token"]

    def login(self, **more):
        return self.hvac.Client(url=ADDR, verify=CA, **more)


class Requests:
    def __init__(self):
        import requests

        self.requests = requests
        self.session = requests.Session()
        self.session.verify = CA
        self.session.headers["X-Vault-Token"] = TOKEN

    def version(self):
        return self.requests.__version__

    def send(self, method, path, session=None, **more):
        r = (session or self.session).request(method, ADDR + "/v1/" + path, **more)
        if not r.ok:
            raise RuntimeError("status %d: %s" % (r.status_code, r.text[:200]))
        return r.json() if r.content else {}

    def write(self, q):
        self.send("PUT", "secret/data/" + q["name"], json={"data": {"value": q["value"]}})

    def read(self, q):
        return self.send("GET", "secret/data/" + q["name"])["data"]["data"]["value"]

    def list(self, q):
        return ",".join(self.send("LIST", "secret/metadata/" + q["name"])["data"]["keys"])

    def delete(self, q):
        self.send("DELETE", "secret/data/" + q["name"])

    def wrap(self, q):
        token = self.send("GET", "secret/data/" + q["name"], headers={"X-Vault-Wrap-TTL": "60s"})["wrap_info"]["token"]
        return self.send("POST", "sys/wrapping/unwrap", headers={"X-Vault-Token": token})["data"]["data"]["value"]

    def userpass(self, q):
        return self.login("auth/userpass/login/" + q["user"], {"password": q["password"]})

    def approle(self, q):
        return self.login("auth/approle/login", {"role_id": q["role_id"], "secret_id": q["secret_id"]})

    def cert(self, q):
        return self.login("auth/cert/login", {"name": "web"}, cert=CERT)

    def login(self, path, body, cert=None):
        session = self.requests.Session()
        session.verify, session.cert = CA, cert
        return self.send("POST", path, session, json=body)["auth"]["client_token"]


def say(answer):
    print(json.dumps(answer), flush=True)


def main():
    try:
        client = {"hvac": Hvac, "requests": Requests}[sys.argv[1]]()
    except ImportError as e:
        say({"missing": str(e)})
        return
    say({"version": client.version()})
    for line in sys.stdin:
        q = json.loads(line)
        op = "write" if q["op"] == "big" else q["op"]
        try:
            say({"value": getattr(client, op)(q) or ""})
        except Exception as e:  # whatever the client's user sees
            say({"error": "%s: %s" % (type(e).__name__, e)})


main()
