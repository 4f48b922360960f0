// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package http1

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// Request is a request whose header is parsed line by line as it arrives. Its fields are parts of a buffer.
type Request struct {
	Method []byte
	Target []byte // a path and perhaps a query, of visible ASCII but no #; each % begins an escape
	Path   []byte // the path in it
	Host   []byte // a name or an address, perhaps with a port; never empty
	Proto  []byte // X-Forwarded-Proto; nil if there is none

	Token         []byte // X-Vault-Token; nil if there is none
	Authorization []byte // Authorization; nil if there is none

	Escaped   bool // the path has an escape
	Forwarded bool // it has one of the headers that may have the client's address
	Close     bool // the client wants the connection closed
	Length    int  // of the body

	parsed int // how long the lines are that were parsed; in the end, how long the header is
	seen   seen
}

// seen notes the headers that may come only once.
type seen uint8

const (
	seenHost seen = 1 << iota
	seenLength
	seenConnection
	seenProto
	seenToken
	seenAuthorization
)

// maxBody is how long a body may be: net/http closes the connection rather than discard a longer one.
const maxBody = 256<<10 - 1

// verdict says what is to be done with the bytes that have arrived.
type verdict int

const (
	incomplete verdict = iota // more must be read; if there is no more, the connection must be closed
	plain                     // the listener goes on with them: they are understood
	other                     // the server must get them
)

// parse parses the lines that have arrived since the last call; b is all of the request so far. clients are the names, in lower case,
// of headers that may have the client's address.
func (r *Request) parse(b []byte, clients []string) verdict {
	if len(b) > 0 && !mayBegin[b[0]] {
		return other
	}
	for {
		end := bytes.IndexByte(b[r.parsed:], '\n')
		switch {
		case end < 0:
			return incomplete
		case end == 0 || b[r.parsed+end-1] != '\r':
			return other
		}
		line := b[r.parsed : r.parsed+end-1]
		r.parsed += end + 1
		switch {
		case r.Method == nil:
			if !r.takeFirst(line) {
				return other
			}
		case len(line) == 0:
			if r.seen&seenHost == 0 || r.Close && r.Length > 0 {
				return other
			}
			return plain
		case !r.takeField(line, clients):
			return other
		}
	}
}

var (
	// mayBegin has the first bytes of the methods that are answered.
	mayBegin = tableOf(func(c byte) bool { return strings.IndexByte("GHLPD", c) >= 0 })
	// inTarget has the bytes of a target that need no closer look.
	inTarget = tableOf(func(c byte) bool { return '!' <= c && c <= '~' && c != '?' && c != '%' && c != '#' })
	// inQuery has the bytes of a query, of which escapes are not looked at.
	inQuery = tableOf(func(c byte) bool { return inTarget[c] || c == '?' || c == '%' })
	// inName has the bytes of header names: not all that HTTP allows, since Caddy drops headers with _ or a dot.
	inName = tableOf(func(c byte) bool { return isAlphanumeric(c) || c == '-' })
	// inValue has visible ASCII, space and tab.
	inValue = tableOf(func(c byte) bool { return ' ' <= c && c <= '~' || c == '\t' })
	// inHost has the bytes of host names and addresses, perhaps with a port.
	inHost = tableOf(func(c byte) bool { return isAlphanumeric(c) || strings.IndexByte(".-:[]_", c) >= 0 })
)

// tableOf returns the table of the bytes for which a condition holds.
func tableOf(holds func(c byte) bool) (table [256]bool) {
	for c := range table {
		table[c] = holds(byte(c))
	}
	return table
}

// allIn reports whether a table has all bytes of a text.
func allIn(table *[256]bool, text []byte) bool {
	for _, c := range text {
		if !table[c] {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// takeFirst parses the first line: a method, a target and the version, with one space in between.
func (r *Request) takeFirst(line []byte) bool {
	const version = " HTTP/1.1"
	method := bytes.IndexByte(line, ' ')
	target := len(line) - len(version)
	if method < 0 || method >= target || string(line[target:]) != version {
		return false
	}
	switch string(line[:method]) {
	case "GET", "HEAD", "LIST", "PUT", "POST", "DELETE", "PATCH":
	default:
		return false
	}
	r.Method, r.Target = line[:method], line[method+1:target]
	return r.takeTarget()
}

// takeTarget finds the path in the target. It refuses a target that the handler would not copy into Location unchanged.
func (r *Request) takeTarget() bool {
	path, query, _ := bytes.Cut(r.Target, []byte("?"))
	if len(path) == 0 || path[0] != '/' {
		return false
	}
	r.Path = path
	for i, c := range path {
		if inTarget[c] {
			continue
		}
		if c != '%' || i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
			return false
		}
		r.Escaped = true
	}
	return allIn(&inQuery, query)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// takeField parses a header field.
func (r *Request) takeField(line []byte, clients []string) bool {
	colon := 0
	for colon < len(line) && inName[line[colon]] {
		colon++
	}
	if colon == 0 || colon == len(line) || line[colon] != ':' {
		return false
	}
	name, value := line[:colon], line[colon+1:]
	if !allIn(&inValue, value) {
		return false
	}
	value = bytes.Trim(value, " \t")
	switch {
	case is(name, "host"):
		r.Host = value
		return r.once(seenHost) && isHost(value)
	case is(name, "content-length"):
		return r.once(seenLength) && r.takeLength(value)
	case is(name, "connection"):
		r.Close = is(value, "close")
		return r.once(seenConnection) && (r.Close || is(value, "keep-alive"))
	case is(name, "x-forwarded-proto"):
		r.Proto = value
		if !r.once(seenProto) {
			return false
		}
	case is(name, "x-vault-token"):
		r.Token = value
		return r.once(seenToken)
	case is(name, "authorization"):
		r.Authorization = value
		return r.once(seenAuthorization)
	case is(name, "transfer-encoding"), is(name, "expect"), is(name, "upgrade"), is(name, "http2-settings"), is(name, "trailer"), is(name, "vault-redirect-probe"):
		return false
	}
	for _, client := range clients {
		if is(name, client) {
			r.Forwarded = true
		}
	}
	return true
}

// once reports whether a header comes for the first time.
func (r *Request) once(s seen) bool {
	first := r.seen&s == 0
	r.seen |= s
	return first
}

func (r *Request) takeLength(digits []byte) bool {
	n, err := strconv.ParseUint(string(digits), 10, 32)
	r.Length = int(n)
	return err == nil && n <= maxBody
}

// is reports whether a name equals another one, which is given in lower case.
func is(name []byte, lower string) bool {
	return len(name) == len(lower) && strings.EqualFold(string(name), lower)
}

// isHost reports whether a value looks like a host name or an address, perhaps with a port. Only dots are none.
func isHost(value []byte) bool {
	return allIn(&inHost, value) && slices.ContainsFunc(value, isAlphanumeric)
}
