// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

package main

import "context"

const agentFault = "In Vault: a request that passes through the agent's listener loses its body in a redirect. " +
	"[The agent](https://github.com/hashicorp/vault/blob/v1.21.0/command/agentproxyshared/cache/api_proxy.go#L124) hands the body over as bytes, " +
	"and [`ResetJSONBody`](https://github.com/hashicorp/vault/blob/v1.21.0/api/request.go#L58) of `vault/api` then makes it `null`. We know of no " +
	"issue for it. Clients of a standby that redirects instead of forwarding are affected, too."

// clients are those of the matrix, in its order.
var clients = []client{
	{name: "`vault`", open: openVaultCLI},
	{
		name: "Vault Agent", ops: append([]op{opTemplate, opCache}, commonOps...), open: openAgent("agent"),
		fails: []op{opCache, opWrite, opBig, opUserpass}, mend: `proxy header User-Agent "*API Proxy/*"`, fault: agentFault,
	},
	{
		name: "Vault Proxy", ops: append([]op{opCache}, commonOps...), open: openAgent("proxy"),
		fails: []op{opCache, opWrite, opBig, opUserpass}, mend: `proxy header User-Agent "*API Proxy/*"`,
		fault: "The same. Its own logins and, with Vault Agent, templates need no proxy; they have another `User-Agent`.",
	},
	{name: "consul-template", ops: []op{opTemplate}, open: openConsulTemplate},
	{name: "Terraform", open: leftOut("its provider is a Go module only up to release 1.9.0, whose plugin protocol Terraform no longer speaks since " +
		"0.12; it uses `vault/api`")},
	{name: "Go: `vault/api`", open: openGo("vault/api")},
	{name: "Go: `vault-client-go`", open: openGo("vault-client-go")},
	{name: "Go: `net/http`", open: openGo("net/http")},
	{name: "`curl -L`, `X-Vault-Token`", open: openCurl("X-Vault-Token: ")},
	{
		name:  "`curl -L`, `Authorization: Bearer`",
		open:  openCurl("Authorization: Bearer "),
		fails: []op{opRead, opWrite, opList, opDelete, opBig, opWrap},
		mend:  "proxy header Authorization *",
		fault: "In curl, by design: it does not send this header to another host without `--location-trusted` " +
			"([curl](https://curl.se/docs/manpage.html#--location-trusted)). `X-Vault-Token` does not have that problem.",
	},
	{name: "Python: hvac", open: openPython("hvac")},
	{name: "Python: requests", open: openPython("requests")},
	{name: "Node: node-vault", open: openNode("node-vault")},
	{
		name:  "Node: node-vault",
		open:  openNode("node-vault-0.10"),
		fails: []op{opWrite, opDelete, opBig, opWrap, opUserpass, opAppRole, opCert},
		mend:  "proxy method POST PUT PATCH DELETE",
		never: []op{opCert},
		fault: "In the client: its HTTP library follows redirects of GET, HEAD and LIST only " +
			"([node-vault#23](https://github.com/nodevault/node-vault/issues/23)). 0.12 follows. A login with a certificate " +
			"cannot be proxied, whatever the client: TLS has to end at Vault. With `requestOptions: {followAllRedirects: true}`, as in the " +
			"next line of the tables, this one follows as well.",
	},
	{name: "Node: node-vault, `followAllRedirects`", open: openNode("node-vault-0.10 followAllRedirects")},
	{name: "Node: @litehex/node-vault", open: openNode("@litehex/node-vault")},
	{name: "Node: node-vault-client", open: openNode("node-vault-client")},
	{name: "Node: axios", open: openNode("axios")},
	{name: "Node: got", open: openNode("got")},
	{name: "Node: `fetch`", open: openNode("fetch")},
	{
		name:  "Chromium",
		ops:   []op{opNavigate, opSame, opOther, opPreflight},
		open:  openBrowser,
		fails: []op{opOther, opPreflight},
		mend:  "proxy header Sec-Fetch-Mode cors",
		fault: "By design: the [Fetch standard](https://fetch.spec.whatwg.org/#cors-preflight-fetch) forbids redirects of preflights, and wants " +
			"CORS headers on every redirect of a request to another origin.",
	},
}

// leftOut is for a client that cannot be run here.
func leftOut(why string) func(context.Context, *stage, *site) (driver, error) {
	return func(context.Context, *stage, *site) (driver, error) { return nil, missing("%s", why) }
}
