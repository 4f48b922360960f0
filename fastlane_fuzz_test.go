// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// last is a request that shows whether a connection lives, and where what came before it ended.
const last = "GET /last HTTP/1.1\r\nHost: vault.example.com\r\n\r\n"

// talks are what clients, and others, send. {n} stands for n bytes of a body or a header.
var talks = map[string]string{
	"nothing":                  "",
	"a request":                "GET /v1/secret/a HTTP/1.1\r\nHost: vault.example.com\r\n\r\n",
	"each method":              "GET /a HTTP/1.1\r\nHost: h\r\n\r\nHEAD /b HTTP/1.1\r\nHost: h\r\n\r\nLIST /c HTTP/1.1\r\nHost: h\r\n\r\nDELETE /d HTTP/1.1\r\nHost: h\r\n\r\nPATCH /e HTTP/1.1\r\nHost: h\r\n\r\nPUT /f HTTP/1.1\r\nHost: h\r\n\r\nPOST /g HTTP/1.1\r\nHost: h\r\n\r\n",
	"other methods":            "GET / HTTP/1.1\r\nHost: h\r\n\r\nOPTIONS / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	"a long method":            strings.Repeat("G", 40) + " / HTTP/1.1\r\nHost: h\r\n\r\n",
	"bodies":                   "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n{5}POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nGET",
	"a body of a GET":          "GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 14\r\n\r\nGET / HTTP/1.1",
	"a body longer than reads": "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\n{9000}",
	"half a body":              "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{60}",
	"the longest body":         "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 262143\r\n\r\n{262143}",
	"no body":                  "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
	"lengths that differ":      "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
	"the same length twice":    "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
	"a length with a sign":     "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\na",
	"a length with zeros":      "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0001\r\n\r\na",
	"a length in hexadecimal":  "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0x1\r\n\r\na",
	"no number":                "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n\r\n",
	"lengths in a list":        "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\na",
	"chunks":                   "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	"chunks and a length":      "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"a length and chunks":      "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n0\r\n\r\n",
	"chunks, space before":     "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
	"chunks, folded":           "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"chunks, underscore":       "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
	"chunks, tab":              "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
	"chunks, other encoding":   "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	"identity":                 "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
	"to be continued":          "PUT /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
	"another expectation":      "PUT /a HTTP/1.1\r\nHost: h\r\nExpect: wonders\r\n\r\n",
	"upgrade":                  "GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	"upgrade to h2c":           "GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
	"HTTP/2":                   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	"half of HTTP/2":           "PRI * HT",
	"HTTP/2 later":             "GET /a HTTP/1.1\r\nHost: h\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	"close":                    "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
	"CLOSE":                    "HEAD /a HTTP/1.1\r\nHost: h\r\nconnection:  CLOSE \r\n\r\n",
	"close in a list":          "GET /a HTTP/1.1\r\nHost: h\r\nConnection: foo, close\r\n\r\n",
	"close and a body":         "PUT /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
	"kept":                     "GET /a HTTP/1.1\r\nHost: h\r\nConnection: Keep-Alive\r\n\r\n",
	"kept and close":           "GET /a HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
	"HTTP/1.0":                 "GET /a HTTP/1.0\r\nHost: h\r\n\r\n",
	"HTTP/1.0 kept":            "GET /a HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
	"HTTP/1.2":                 "GET /a HTTP/1.2\r\nHost: h\r\n\r\n",
	"HTTP/0.9":                 "GET /a\r\n",
	"http/1.1":                 "GET /a http/1.1\r\nHost: h\r\n\r\n",
	"no host":                  "GET /a HTTP/1.1\r\n\r\n",
	"an empty host":            "GET /a HTTP/1.1\r\nHost:\r\n\r\n",
	"two hosts":                "GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	"a host of dots":           "GET /a HTTP/1.1\r\nHost: ...\r\n\r\n",
	"a host of dots, port":     "GET /a HTTP/1.1\r\nHost: ..:80\r\n\r\n",
	"a host with a user":       "GET /a HTTP/1.1\r\nHost: a@b\r\n\r\n",
	"a host with a path":       "GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n",
	"a host that is no name":   "GET /a HTTP/1.1\r\nHost: a\"b\r\n\r\n",
	"hosts":                    "GET /a HTTP/1.1\r\nHost: VAULT.example.com:443\r\n\r\nGET /b HTTP/1.1\r\nHost: vault-2.example.com\r\n\r\nGET /c HTTP/1.1\r\nHost: [::1]:8\r\n\r\nGET /c HTTP/1.1\r\nHost: a:b:c\r\n\r\n",
	"the node's own name":      "GET /a HTTP/1.1\r\nHost: vault-1.vault.example.com:443\r\n\r\nGET /a HTTP/1.1\r\nHost: vault-1.vault.example.com\r\n\r\n",
	"a name as by a proxy":     "GET /a HTTP/1.1\r\nHost: vault-1.vault.example.com\r\nX-Forwarded-Proto: HTTPS\r\n\r\n",
	"twice by a proxy":         "GET /a HTTP/1.1\r\nHost: vault-1.vault.example.com\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n\r\n",
	"a client by a proxy":      "GET /a HTTP/1.1\r\nHost: vault.example.com\r\nX-Forwarded-For: 203.0.113.1\r\n\r\n",
	"absolute":                 "GET http://vault.example.com/a HTTP/1.1\r\nHost: h\r\n\r\n",
	"no path":                  "GET * HTTP/1.1\r\nHost: h\r\n\r\n",
	"an empty target":          "GET  HTTP/1.1\r\nHost: h\r\n\r\n",
	"authority":                "CONNECT a:1 HTTP/1.1\r\nHost: h\r\n\r\n",
	"two slashes":              "GET //evil.com/%2e%2e/a HTTP/1.1\r\nHost: h\r\n\r\n",
	"escapes":                  "GET /a%2Fb%20c%zz HTTP/1.1\r\nHost: h\r\n\r\nGET /a%2Fb%2fc/../%25?x=%zz%2 HTTP/1.1\r\nHost: h\r\n\r\n",
	"an escape cut":            "GET /a%2 HTTP/1.1\r\nHost: h\r\n\r\n",
	"queries":                  "GET /a? HTTP/1.1\r\nHost: h\r\n\r\nGET /a??b=/?c HTTP/1.1\r\nHost: h\r\n\r\nGET /?a#b HTTP/1.1\r\nHost: h\r\n\r\n",
	"a fragment":               "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n",
	"odd bytes":                "GET /a\"<>\\^`{|}[]' HTTP/1.1\r\nHost: h\r\n\r\n",
	"no ASCII":                 "GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n",
	"no visible":               "GET /a\x7f HTTP/1.1\r\nHost: h\r\n\r\nGET /a\x01 HTTP/1.1\r\nHost: h\r\n\r\n",
	"health":                   "GET /vault-redirector-health/live HTTP/1.1\r\nHost: h\r\n\r\nGET /vault-redirector-healthy HTTP/1.1\r\nHost: h\r\n\r\n",
	"health, escaped":          "GET /vault%2Dredirector-health/live HTTP/1.1\r\nHost: h\r\n\r\n",
	"a challenge":              "GET /.well-known/acme-challenge/x HTTP/1.1\r\nHost: h\r\n\r\nGET /%2ewell-known/acme-challenge/x HTTP/1.1\r\nHost: h\r\n\r\n",
	"to the proxy":             "GET /v1/a HTTP/1.1\r\nHost: h\r\n\r\nGET /v1/sys/health HTTP/1.1\r\nHost: h\r\n\r\n",
	"to the proxy, escaped":    "GET /v1/%73ys/health HTTP/1.1\r\nHost: h\r\n\r\n",
	"not to the proxy":         "PUT /v1/sys/health HTTP/1.1\r\nHost: h\r\n\r\n",
	"header fields":            "GET /a HTTP/1.1\r\nhOsT:h\r\nAccept: */*\r\nX-Empty:\r\nX-Vault-Token: \t s.x \t\r\nUser-Agent: a \"b\" (c)\r\n\r\n",
	"no ASCII in a header":     "GET /a HTTP/1.1\r\nHost: h\r\nX: \xc3\xa4\r\n\r\n",
	"no text in a header":      "GET /a HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
	"no colon":                 "GET /a HTTP/1.1\r\nHost: h\r\nX\r\n\r\n",
	"no name":                  "GET /a HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n",
	"a space in a name":        "GET /a HTTP/1.1\r\nHost: h\r\nA B: x\r\n\r\n",
	"other names":              "GET /a HTTP/1.1\r\nHost: h\r\nA_B.C: x\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n~!: x\r\n\r\n",
	"folded":                   "GET /a HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
	"folded at once":           "GET /a HTTP/1.1\r\n Host: h\r\n\r\n",
	"bare line feeds":          "GET /a HTTP/1.1\nHost: h\n\n",
	"a bare line feed":         "GET /a HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
	"a bare end":               "GET /a HTTP/1.1\r\nHost: h\r\n\n",
	"bare carriage returns":    "GET /a HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\r\n\r\n",
	"lines before":             "\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
	"lines between":            "GET /a HTTP/1.1\r\nHost: h\r\n\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
	"lines after a POST":       "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
	"five lines after a POST":  "POST /a HTTP/1.1\r\nHost: h\r\n\r\n\n\n\n\n\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
	"lines after a POST, odd":  "POST /a HTTP/1.1\r\nHost: h\r\n\r\n\r\n\r\nOPTIONS /b HTTP/1.1\r\nHost: h\r\n\r\n",
	"lines after a PUT":        "PUT /a HTTP/1.1\r\nHost: h\r\n\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
	"spaces":                   " GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
	"more spaces":              "GET  /a HTTP/1.1\r\nHost: h\r\n\r\n",
	"spaces at the end":        "GET /a HTTP/1.1 \r\nHost: h\r\n\r\n",
	"a tab":                    "GET\t/a HTTP/1.1\r\nHost: h\r\n\r\n",
	"half a request":           "GET /a HTTP/1.1\r\nHost: h\r\nX: ",
	"half a second request":    "GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTT",
	"a byte of a second":       "GET /a HTTP/1.1\r\nHost: h\r\n\r\nG",
	"a long target":            "GET /{3000} HTTP/1.1\r\nHost: h\r\n\r\n",
	"a target longer yet":      "GET /{6000} HTTP/1.1\r\nHost: h\r\n\r\n",
	"a long header":            "GET /a HTTP/1.1\r\nHost: h\r\nX: {4000}\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\nX: {4040}\r\n\r\n",
	"a header longer yet":      "GET /a HTTP/1.1\r\nHost: h\r\nX: {9000}\r\n\r\n",
	"many":                     strings.Repeat("GET /v1/secret/data/a/long/path/to/something HTTP/1.1\r\nHost: h\r\nUser-Agent: x\r\n\r\n", 200),
	"TLS":                      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	"an answer":                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	"a trailer":                "GET /a HTTP/1.1\r\nHost: h\r\nTrailer: X\r\n\r\n",
	"pragma":                   "GET /a HTTP/1.1\r\nHost: h\r\nPragma: no-cache\r\n\r\n",
}

// written returns what a talk stands for.
func written(talk string) []byte {
	for {
		before, rest, ok := strings.Cut(talk, "{")
		number, after, closed := strings.Cut(rest, "}")
		n := 0
		if _, err := fmt.Sscanf(number, "%d", &n); !ok || !closed || err != nil {
			return []byte(talk)
		}
		talk = before + strings.Repeat("x", n) + after
	}
}

// cut cuts data in pieces: each byte of cuts is how long one is, and what is left is the last one.
func cut(data []byte, cuts []byte) (pieces [][]byte) {
	for _, c := range cuts {
		n := min(int(c)+1, len(data))
		if n == 0 {
			break
		}
		pieces, data = append(pieces, data[:n]), data[n:]
	}
	if len(data) > 0 {
		pieces = append(pieces, data)
	}
	return pieces
}

// TestFastLaneAnswersTheSame sends each talk to each kind of servers, whole and in pieces, and with a request after it.
func TestFastLaneAnswersTheSame(t *testing.T) {
	p := newPairs(t)
	for name, talk := range talks {
		data, rows := written(talk), map[string]kind{}
		for _, k := range kinds {
			rows[name+"/"+k.name] = k
		}
		together(t, rows, func(t *testing.T, k kind) {
			p.compare(t, k, cut(data, nil))
			p.compare(t, k, append(cut(data, nil), []byte(last)))
			whole := append(bytes.Clone(data), last...)
			p.compare(t, k, cut(whole, nil))
			p.compare(t, k, cut(whole, bytes.Repeat([]byte{6}, min(len(whole)/7, 200))))
			if len(whole) < 300 {
				p.compare(t, k, cut(whole, make([]byte, len(whole))))
			}
		})
	}
}

// FuzzFastLane sends the same bytes, cut in the same places, to a server with the lane and to one without.
func FuzzFastLane(f *testing.F) {
	for _, talk := range talks {
		if data := written(talk); len(data) < 4<<10 {
			for kind := range kinds {
				f.Add(byte(kind), []byte{}, data)
			}
			f.Add(byte(len(kinds)), []byte{20, 0, 3}, data)
		}
	}
	p := newPairs(f)
	f.Fuzz(func(t *testing.T, mode byte, cuts, data []byte) {
		k := kinds[int(mode)%len(kinds)]
		pieces := cut(data, cuts)
		if int(mode)/len(kinds)%2 == 1 {
			pieces = append(pieces, []byte(last))
		}
		p.compare(t, k, pieces)
	})
}
