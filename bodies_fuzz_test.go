// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// bodyKinds are the kinds of servers that get bodies. Those whose node is steady answer the same with the lane and without.
var bodyKinds = []kind{
	{name: "steady", service: "steady", more: marksProxied},
	{name: "steady-tls", service: "steady", more: marksProxied, tls: true},
	{name: "rude", service: "rude", more: marksProxied + `, "hold": "200ms"`},
	{name: "rude-tls", service: "rude", more: marksProxied + `, "hold": "200ms"`, tls: true},
	{name: "sized", service: "rude", more: marksProxied, before: `{"handler": "request_body", "max_size": 1000},`, alone: true},
	{name: "sized-tls", service: "rude", more: marksProxied, before: `{"handler": "request_body", "max_size": 1000},`, alone: true, tls: true},
}

const marksProxied = `, "scheme": "http", "proxy": {"match": [{"path": ["/v1/p/*"]}]}`

// What nodes do with requests, by the bytes of a script; see rudeNode.
var (
	steadyWays = []string{"read", "slow"}
	rudeWays   = []string{"read", "slow", "read-close", "early", "early-close", "half", "cut", "die", "hang"}
)

// pathMark is what each path begins with that is proxied (p), or redirected (r): the number of a talk, and where in the talk it
// stands, both in hexadecimal.
var pathMark = regexp.MustCompile(`/v1/[pr]/([0-9a-f]{8})([0-9a-f]{6})`)

const (
	noMark   = "00000000000000"
	toNode   = " /v1/p/" + noMark + " HTTP/1.1\r\nHost: h\r\n"
	buried   = "PUT" + toNode + "Content-Length: 0\r\n\r\n" // a request that is inside a body
	wordsAt  = 0x80                                         // the first byte that stands for a word
	maxTalks = 1000                                         // how many talks are remembered, for requests that come to a node late
)

// words are what the bytes from wordsAt on stand for: with them, requests and bodies are not much longer than what a fuzzer
// tries to change.
var words = []string{
	"GET" + toNode, "PUT" + toNode, "POST" + toNode, "HEAD" + toNode, "LIST" + toNode,
	"GET /v1/r/" + noMark + " HTTP/1.1\r\nHost: h\r\n", "PUT /v1/r/" + noMark + " HTTP/1.1\r\nHost: h\r\n",
	"GET /v1/p/" + noMark + " HTTP/1.0\r\nHost: h\r\n", "GET" + toNode + "\r\n", buried,
	"\r\n", "\n", "\r", "0\r\n\r\n", "0\r\n", "ZZ\r\n", "5\r\nhello\r\n", "5\r\nhello", "5;a=b\r\nhello\r\n", "fffff\r\n", "hello",
	"Transfer-Encoding: chunked\r\n", "transfer-encoding:CHUNKED\r\n", "Transfer-Encoding: gzip\r\n", "Trailer: X\r\n", "X: y\r\n",
	"Expect: 100-continue\r\n", "Connection: close\r\n", "Connection: keep-alive\r\n", "Connection: Upgrade\r\nUpgrade: websocket\r\n",
	"Content-Length: 0\r\n", "Content-Length: 5\r\n", "Content-Length: 1000\r\n", "Content-Length: 1001\r\n", "Content-Length: 40000\r\n", "Content-Length: 300000\r\n",
	fmt.Sprintf("Content-Length: %d\r\n", len(buried)), fmt.Sprintf("Content-Length: %d\r\n", len(buried)-1), fmt.Sprintf("Content-Length: %d\r\n", 100*len(buried)),
	fmt.Sprintf("%x\r\n%s\r\n", len(buried), buried), fmt.Sprintf("%x\r\n%s\r\n", len(buried)-1, buried), fmt.Sprintf("%x\r\n%s\r\n", len(buried)+1, buried),
	fmt.Sprintf("%x\r\n%s\r\n", 100*len(buried), strings.Repeat(buried, 100)), strings.Repeat(buried, 100),
	strings.Repeat("x", 1000), strings.Repeat("x", 40000), strings.Repeat("x", 300000), fmt.Sprintf("%x\r\n%s\r\n", 40000, strings.Repeat("x", 40000)),
}

// spell returns what bytes stand for; nil if that is more than a talk should be.
func spell(data []byte) (stream []byte) {
	for _, b := range data {
		if i := int(b) - wordsAt; i >= 0 && i < len(words) {
			stream = append(stream, words[i]...)
		} else {
			stream = append(stream, b)
		}
		if len(stream) > 1<<20 {
			return nil
		}
	}
	return stream
}

// spoken is a talk of which the nodes know.
type spoken struct {
	id       int
	stream   []byte         // with its marks
	requests []framed       // that are in it
	at       map[int]int    // the request of a mark; none: it is inside a body, or after what ends all
	ways     map[int]string // what the node does, by the number of a request
	seen     map[int]int    // how often the node got a request
}

// talksSpoken are the talks, and what went wrong in any of them.
type talksSpoken struct {
	mu    sync.Mutex
	last  int
	by    map[int]*spoken
	wrong []string
}

// begin begins a talk: it marks a stream.
func (s *talksSpoken) begin(stream, script []byte, ways []string) *spoken {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	delete(s.by, s.last-maxTalks)
	talk := &spoken{s.last, bytes.Clone(stream), frame(stream), map[int]int{}, map[int]string{}, map[int]int{}}
	s.by[talk.id] = talk
	for _, found := range pathMark.FindAllSubmatchIndex(stream, -1) {
		at := found[2]
		copy(talk.stream[at:], fmt.Sprintf("%08x%06x", talk.id, at))
		for i, r := range talk.requests {
			if r.header && r.line[0] <= at && at < r.line[1] {
				talk.at[at] = i
			}
		}
	}
	for i, r := range talk.requests {
		way := "read"
		if len(script) > 0 {
			way = ways[int(script[i%len(script)])%len(ways)]
		}
		// That the client has left is noticed only where it has sent nothing more.
		if way == "hang" && r.whole && r.end < len(stream) {
			way = "read"
		}
		talk.ways[i] = way
	}
	return talk
}

// node is the script of the nodes.
func (s *talksSpoken) node(r *http.Request) (path string, took func(int64)) {
	took = func(int64) {}
	id, at, ok := markOf(r.URL.Path)
	if !ok {
		return "/read", took
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	talk := s.by[id]
	if talk == nil {
		return "/read", took
	}
	i, ok := talk.at[at]
	if !ok {
		s.wrong = append(s.wrong, fmt.Sprintf("what is at %d came to the node as a request: %q", at, talk.stream))
		return "/read", took
	}
	f := talk.requests[i]
	talk.seen[i]++
	most := 1
	if slices.Contains([]string{"GET", "HEAD", "OPTIONS", "LIST"}, f.method) && f.length == 0 {
		most += maxRepeats
	}
	if talk.seen[i] > most || r.Method != f.method {
		s.wrong = append(s.wrong, fmt.Sprintf("the request at %d came to the node %d times, with the method %s: %q", at, talk.seen[i], r.Method, talk.stream))
	}
	return "/" + talk.ways[i], func(length int64) {
		if f.whole && length == f.length {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wrong = append(s.wrong, fmt.Sprintf("the body of the request at %d came to the node as a whole one of %d bytes: %q", at, length, talk.stream))
	}
}

// markOf returns the talk of a mark, and where it stands.
func markOf(text string) (id, at int, ok bool) {
	found := pathMark.FindStringSubmatch(text)
	if found == nil {
		return 0, 0, false
	}
	talk, _ := strconv.ParseUint(found[1], 16, 32)
	offset, _ := strconv.ParseUint(found[2], 16, 32)
	return int(talk), int(offset), true
}

// finalAnswer is one answer.
type finalAnswer struct {
	code   int
	marked string // where the request's mark comes back
	closes bool   // the server says that it is the last one
}

// converse speaks a talk to a server, and returns all answers until the end of the connection. The client ends its side once
// it has sent all and has so many answers.
func (p *pairs) converse(t testing.TB, k kind, lane bool, talk *spoken, cuts []byte, enough int) (answers []finalAnswer) {
	t.Helper()
	c, end := p.dial(t, k, lane)
	suffices, sent := make(chan struct{}), make(chan struct{})
	sufficient := sync.OnceFunc(func() { close(suffices) })
	go func() {
		defer close(sent)
		for _, piece := range cut(talk.stream, cuts) {
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
		<-suffices
		_ = c.CloseWrite()
	}()
	defer func() { sufficient(); end(); <-sent }()
	reader := bufio.NewReader(c)
	for {
		if len(answers) >= enough {
			sufficient()
		}
		asked := &http.Request{Method: http.MethodGet}
		if i := len(answers); i < len(talk.requests) && talk.requests[i].method == http.MethodHead {
			asked.Method = http.MethodHead
		}
		resp, err := http.ReadResponse(reader, asked)
		var rest []byte
		if err == nil && resp.StatusCode < 200 {
			continue
		}
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			answers = append(answers, finalAnswer{resp.StatusCode, resp.Header.Get("X-Path") + resp.Header.Get("Location"), resp.Close})
			if resp.Close && err == nil {
				sufficient()
				rest, err = io.ReadAll(reader)
			}
		}
		switch {
		case isTimeout(err) || errors.Is(err, os.ErrDeadlineExceeded):
			t.Errorf("%s: after %v the connection is still open: %q", k.name, answers, talk.stream)
			return answers
		case bytes.Contains(rest, []byte("HTTP/1.")):
			t.Errorf("%s: after the last one of %v there is another answer: %q, to %q", k.name, answers, rest, talk.stream)
			return answers
		case err != nil || resp.Close:
			return answers
		}
	}
}

// check fails unless the answers are those to the requests of the talk, in order.
func (talk *spoken) check(t testing.TB, name string, answers []finalAnswer) {
	t.Helper()
	if len(answers) > len(talk.requests) {
		t.Errorf("%s: %d answers to %d requests, %v: %q", name, len(answers), len(talk.requests), answers, talk.stream)
		return
	}
	for i, a := range answers {
		id, at, ok := markOf(a.marked)
		if of, found := talk.at[at]; ok && (id != talk.id || !found || of != i) {
			t.Errorf("%s: answer %d is that to what is at %d (of talk %d): %q", name, i, at, id, talk.stream)
		}
	}
}

// FuzzProxiedBodies sends requests with bodies to servers that proxy them to nodes that read them, or do not. Whatever comes
// of a body, nothing in it or after its break is a request. The first bytes say to which servers a talk goes, when the client
// ends, and what the nodes do.
func FuzzProxiedBodies(f *testing.F) {
	seedBodies(f)
	spoken := &talksSpoken{by: map[int]*spoken{}}
	consul := standin.RunConsul(f)
	for _, service := range []string{"steady", "rude"} {
		host, port := hostPortOf(f, newRudeNode(f, spoken.node).Addr().String())
		consul.Set(service, standin.Active("vault-1", standin.Address(host), standin.Port(port)))
	}
	p := newPairsOf(f, consul, bodyKinds)
	f.Fuzz(func(t *testing.T, mode byte, script, cuts, data []byte) {
		stream := spell(data)
		if bytes.Contains(stream, []byte("PRI * HTTP/2")) {
			return // see compare
		}
		k := bodyKinds[int(mode)%len(bodyKinds)]
		leaves := int(mode)/len(bodyKinds)%2 == 1
		p.speak(t, spoken, k, leaves, script, cuts, stream)
	})
}

// speak speaks a talk to the servers of a kind, and checks what comes of it. Who leaves does so without waiting for answers.
func (p *pairs) speak(t testing.TB, s *talksSpoken, k kind, leaves bool, script, cuts, stream []byte) {
	t.Helper()
	ways := rudeWays
	if k.service == "steady" {
		ways = steadyWays
	}
	lanes := []bool{false, true}
	if k.alone {
		lanes = lanes[:1]
	}
	answers, certain := make([][]finalAnswer, len(lanes)), 0
	var group sync.WaitGroup
	for i, lane := range lanes {
		talk := s.begin(stream, script, ways)
		enough := 0
		for i, r := range talk.requests {
			if (r.whole || r.header && r.broken) && !leaves && talk.ways[i] != "hang" {
				enough++ // those that are waited for: one that is cut off is answered only once the client has ended
			}
		}
		certain = enough
		group.Go(func() {
			answers[i] = p.converse(t, k, lane, talk, cuts, enough)
			talk.check(t, fmt.Sprintf("%s, lane %v", k.name, lane), answers[i])
			n := len(answers[i])
			if k.service == "steady" && !leaves && n > 0 && n < len(talk.requests) && talk.requests[n].header && answers[i][n-1].code == http.StatusOK {
				t.Errorf("%s, lane %v: the connection ends after %v: %q", k.name, lane, answers[i], talk.stream)
			}
		})
	}
	group.Wait()
	if k.service == "steady" && !leaves && !slices.EqualFunc(answers[0][:min(certain, len(answers[0]))], answers[1][:min(certain, len(answers[1]))], func(a, b finalAnswer) bool { return a.code == b.code && a.closes == b.closes }) {
		t.Errorf("%s: Caddy's server answers %v, the lane %v: %q", k.name, answers[0], answers[1], stream)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, wrong := range s.wrong {
		t.Error(wrong)
	}
	s.wrong = nil
}

// seedBodies adds each kind of body with what the node may do, behind a request and in front of one.
func seedBodies(f *testing.F) {
	get, last := "GET"+toNode+"\r\n", "GET /v1/r/"+noMark+" HTTP/1.1\r\nHost: h\r\n\r\n"
	for i, b := range bodies {
		if len(b.body) > 100_000 { // words stand for those that are as large
			continue
		}
		request := "PUT" + toNode + b.headers + "\r\n" + strings.ReplaceAll(b.body, "SMUGGLED000000", noMark)
		for mode := range 2 * len(bodyKinds) {
			for way := range rudeWays {
				if k := bodyKinds[mode%len(bodyKinds)]; k.service == "steady" && way > 0 || (i+way+mode)%3 > 0 {
					continue
				}
				f.Add(byte(mode), []byte{0, byte(way)}, []byte{}, []byte(get+request+get+last))
			}
		}
	}
	// By the numbers of words: a chunked body of 40 kB and one with requests in it, bodies by their length, one that is redirected.
	for mode := range 2 * len(bodyKinds) {
		for _, numbers := range [][]byte{
			{1, 21, 10, 47, 42, 13, 8},
			{1, 21, 10, 47, 15, 9},
			{2, 34, 10, 45, 8},
			{1, 35, 10, 46, 8, 9},
			{1, 38, 10, 43, 9},
			{1, 33, 10, 44, 20, 8},
			{3, 10, 9},
			{6, 35, 10, 46, 8},
			{6, 21, 10, 39, 15, 8},
			{1, 26, 21, 10, 42, 15, 8},
			{7, 28, 21, 36, 10, 9, 9},
		} {
			data := make([]byte, len(numbers))
			for i, n := range numbers {
				data[i] = wordsAt + n
			}
			f.Add(byte(mode), []byte{byte(mode * 5)}, []byte{200, 7, 0, 30}, data)
		}
	}
}
