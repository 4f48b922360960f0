// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package http1

import (
	"bytes"
	"strconv"
	"strings"
)

// Request is a request that was parsed completely. Its fields are parts of a buffer.
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

	seen seen
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

// verdict says what the bytes are that have arrived.
type verdict int

const (
	incomplete verdict = iota // a header that is not complete
	plain                     // a header that is understood
	other                     // something else
)

// parser parses the header of a request, line by line as it arrives.
type parser struct {
	at      int // where the next line begins
	named   bool
	clients []string // the names, in lower case, of headers that may have the client's address
}

func (p *parser) reset() { p.at, p.named = 0, false }

// parse parses what has arrived since the last call; b is all of the request so far. If the verdict is plain, the header is the
// first p.at bytes.
func (p *parser) parse(b []byte, r *Request) verdict {
	if len(b) > 0 && !p.named && !mayBegin[b[0]] {
		return other
	}
	for {
		end := bytes.IndexByte(b[p.at:], '\n')
		switch {
		case end < 0:
			return incomplete
		case end == 0 || b[p.at+end-1] != '\r':
			return other
		}
		line := b[p.at : p.at+end-1]
		p.at += end + 1
		switch {
		case !p.named:
			if *r = (Request{}); !r.takeFirst(line) {
				return other
			}
			p.named = true
		case len(line) == 0:
			if r.seen&seenHost == 0 || r.Close && r.Length > 0 {
				return other
			}
			return plain
		case !r.takeField(line, p.clients):
			return other
		}
	}
}

var (
	// mayBegin has the first bytes of the methods that are answered.
	mayBegin = tableOf(func(c byte) bool { return strings.IndexByte("GHLPD", c) >= 0 })
	// inTarget has the bytes of a target that need no closer look.
	inTarget = tableOf(func(c byte) bool { return '!' <= c && c <= '~' && c != '?' && c != '%' && c != '#' })
	// inName has the bytes of header names: not all that HTTP allows, since Caddy drops headers with _ or a dot.
	inName = tableOf(func(c byte) bool { return isAlphanumeric(c) || c == '-' })
	// inValue has visible ASCII, space and tab.
	inValue = tableOf(func(c byte) bool { return ' ' <= c && c <= '~' || c == '\t' })
)

// tableOf returns the table of the bytes for which a condition holds.
func tableOf(holds func(c byte) bool) (table [256]bool) {
	for c := range table {
		table[c] = holds(byte(c))
	}
	return table
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
	t := r.Target
	if len(t) == 0 || t[0] != '/' {
		return false
	}
	r.Path = t
	for i := 0; i < len(t); i++ {
		switch c := t[i]; {
		case inTarget[c]:
		case c == '?':
			r.Path = t[:i]
			for _, c := range t[i:] {
				if !inTarget[c] && c != '?' && c != '%' {
					return false
				}
			}
			return true
		case c == '%' && i+2 < len(t) && isHex(t[i+1]) && isHex(t[i+2]):
			r.Escaped = true
			i += 2
		default:
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// takeField parses a header field. clients are the names of headers that may have the client's address.
func (r *Request) takeField(line []byte, clients []string) bool {
	colon := 0
	for colon < len(line) && inName[line[colon]] {
		colon++
	}
	if colon == 0 || colon == len(line) || line[colon] != ':' {
		return false
	}
	name, value := line[:colon], line[colon+1:]
	for _, c := range value {
		if !inValue[c] {
			return false
		}
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
	name := false
	for _, c := range value {
		switch {
		case isAlphanumeric(c):
			name = true
		case c == '.', c == '-', c == ':', c == '[', c == ']', c == '_':
		default:
			return false
		}
	}
	return name
}
