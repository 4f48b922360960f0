// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// framed is one request of what a client sends, as RFC 9112 says where it ends.
type framed struct {
	line   [2]int // where its first line begins and ends in the stream
	end    int    // where the next one would begin, if it is whole
	method string
	header bool // its header is whole and well-formed; if not, the request is the last one
	whole  bool // its body is, too; if not, the request is the last one
	broken bool // it is malformed, rather than cut off by the end of the stream
	length int64
	hasEnd bool // the client asks for the connection to end after it: it is the last one
}

// frame says which requests a stream has. It shares no code with net/http. In the first line and in headers it tolerates
// all that cannot change where a request ends, so that a server may refuse more than it does; in the framing of bodies it is
// as strict as the RFC, so that a server must not accept more.
func frame(stream []byte) (requests []framed) {
	for at := 0; ; {
		begin := at
		for at < len(stream) && (stream[at] == '\r' || stream[at] == '\n') {
			at++
		}
		switch {
		case begin == len(stream):
			return requests
		case at == len(stream): // empty lines, which may be ignored or be taken for a request that is malformed
			return append(requests, framed{line: [2]int{begin, at}})
		}
		r := frameOne(stream, at)
		requests = append(requests, r)
		if !r.whole || r.hasEnd {
			return requests
		}
		at = r.end
	}
}

// frameOne reads the request that begins at an offset.
func frameOne(stream []byte, at int) (r framed) {
	r.line[0] = at
	line, at, ok := lineAt(stream, at)
	r.line[1] = at
	words := strings.Split(line, " ")
	if r.broken = ok && (len(words) != 3 || len(words[2]) != len("HTTP/1.x") || !strings.HasPrefix(words[2], "HTTP/1.")); r.broken || !ok {
		return r
	}
	r.method = words[0]
	old := words[2] == "HTTP/1.0"
	fields, at, state := fieldsAt(stream, at)
	if r.broken = state == malformed; state != fine {
		return r
	}
	r.hasEnd = has(fields["connection"], "close") || old && !has(fields["connection"], "keep-alive")
	if lengths := fields["content-length"]; len(lengths) > 0 {
		length, err := strconv.ParseInt(lengths[0], 10, 64)
		digits := strings.Trim(lengths[0], "0123456789") == ""
		different := slices.ContainsFunc(lengths, func(l string) bool { return l != lengths[0] })
		if r.broken = err != nil || !digits || different; r.broken {
			return r
		}
		r.length = length
	}
	codings := fields["transfer-encoding"]
	chunked := len(codings) > 0 && !old
	if r.broken = chunked && (len(codings) > 1 || !strings.EqualFold(codings[0], "chunked")); r.broken {
		return r
	}
	r.header = true
	if chunked {
		r.length, r.end, state = chunksAt(stream, at)
		r.whole, r.broken = state == fine, state == malformed
		return r
	}
	r.whole = int64(len(stream)-at) >= r.length
	r.end = at + int(min(r.length, int64(len(stream)-at)))
	return r
}

// state is what became of something that is read.
type state int

const (
	fine state = iota
	malformed
	cutOff // by the end of the stream
)

// lineAt returns a line without its end, and where the next one begins. A line feed ends it, with or without a carriage return.
func lineAt(stream []byte, at int) (line string, next int, ok bool) {
	n := bytes.IndexByte(stream[at:], '\n')
	if n < 0 {
		return string(stream[at:]), len(stream), false
	}
	return strings.TrimSuffix(string(stream[at:at+n]), "\r"), at + n + 1, true
}

// fieldsAt returns the fields of a header or trailer, by their names in lower case.
func fieldsAt(stream []byte, at int) (fields map[string][]string, next int, s state) {
	fields = map[string][]string{}
	name := ""
	for {
		line, next, ok := lineAt(stream, at)
		if !ok {
			return nil, next, cutOff
		}
		at = next
		if line == "" {
			return fields, at, fine
		}
		if strings.TrimLeft(line, " \t") != line { // it goes on with the last field
			if name == "" {
				return nil, at, malformed
			}
			last := &fields[name][len(fields[name])-1]
			*last = strings.Trim(*last+" "+strings.Trim(line, " \t"), " \t")
			continue
		}
		before, value, ok := strings.Cut(line, ":")
		if !ok || before == "" || strings.ContainsAny(before, " \t") {
			return nil, at, malformed
		}
		name = strings.ToLower(before)
		fields[name] = append(fields[name], strings.Trim(value, " \t"))
	}
}

// chunksAt returns the length of a chunked body.
func chunksAt(stream []byte, at int) (length int64, next int, s state) {
	for {
		n := bytes.IndexByte(stream[at:], '\n')
		if n < 0 {
			return 0, len(stream), cutOff
		}
		line, ok := bytes.CutSuffix(stream[at:at+n], []byte("\r"))
		digits, _, _ := strings.Cut(string(line), ";")
		size, err := strconv.ParseUint(strings.TrimRight(digits, " \t"), 16, 63)
		if at += n + 1; !ok || err != nil || strings.HasPrefix(digits, "+") {
			return 0, at, malformed
		}
		if size == 0 {
			break
		}
		if uint64(len(stream)-at) < size {
			return 0, len(stream), cutOff
		}
		at += int(size)
		length += int64(size)
		switch {
		case len(stream)-at < 2:
			return 0, len(stream), cutOff
		case string(stream[at:at+2]) != "\r\n":
			return 0, at, malformed
		}
		at += 2
	}
	if !bytes.Contains(stream[at-2:], []byte("\r\n\r\n")) { // a server may wait for the end of a trailer before it looks at it
		return 0, len(stream), cutOff
	}
	_, at, s = fieldsAt(stream, at)
	return length, at, s
}

// has reports whether a list of a header has a word.
func has(values []string, word string) bool {
	for _, value := range values {
		for one := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.Trim(one, " \t"), word) {
				return true
			}
		}
	}
	return false
}

// The reference of the fuzzer finds requests where the RFC says that they are.
func TestFrame(t *testing.T) {
	const get, put = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", "PUT /a HTTP/1.1\r\nHost: h\r\n"
	for name, row := range map[string]struct {
		stream string
		want   string // of each request: w whole, c its body is cut off, b its body is broken, h its header is cut off, m it is malformed
	}{
		"nothing":                 {"", ""},
		"requests":                {get + get + "\r\n" + get, "www"},
		"empty lines":             {get + "\r\n\r\n", "wh"},
		"a length":                {put + "Content-Length: 28\r\n\r\n" + get + get, "ww"},
		"a length cut":            {put + "Content-Length: 29\r\n\r\n" + get, "c"},
		"lengths":                 {put + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na" + get, "ww"},
		"lengths that differ":     {put + "Content-Length: 1\r\nContent-Length: 2\r\n\r\naa" + get, "m"},
		"a sign":                  {put + "Content-Length: +1\r\n\r\na" + get, "m"},
		"chunks":                  {put + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nab\r\n0\r\nA: b\r\n\r\n" + get, "ww"},
		"chunks and a length":     {put + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get, "ww"},
		"a bad chunk":             {put + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nZZ\r\n" + get, "b"},
		"a chunk without end":     {put + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n" + get, "b"},
		"a chunk's bare feed":     {put + "Transfer-Encoding: chunked\r\n\r\n0\n\r\n" + get, "b"},
		"a bad trailer":           {put + "Transfer-Encoding: chunked\r\n\r\n0\r\nGET\r\n\r\n" + get, "b"},
		"a chunk cut":             {put + "Transfer-Encoding: chunked\r\n\r\n50\r\n" + get, "c"},
		"another coding":          {put + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + get, "m"},
		"a space before a colon":  {put + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + get, "m"},
		"a folded length":         {put + "Content-Length:\r\n 28\r\n\r\n" + get + get, "ww"},
		"an old client's chunks":  {"PUT /a HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + get, "ww"},
		"the end of a connection": {put + "Connection: x, Close\r\n\r\n" + get, "w"},
		"an old client":           {"GET /a HTTP/1.0\r\n\r\n" + get, "w"},
		"half a header":           {get + put, "wh"},
		"half a line":             {get + "GET", "wh"},
		"no version":              {"GET /a\r\n\r\n" + get, "m"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			for _, r := range frame([]byte(row.stream)) {
				switch {
				case r.whole:
					got += "w"
				case r.header && r.broken:
					got += "b"
				case r.header:
					got += "c"
				case r.broken:
					got += "m"
				default:
					got += "h"
				}
			}
			if got != row.want {
				t.Errorf("requests %q, want %q", got, row.want)
			}
		})
	}
}
