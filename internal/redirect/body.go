// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package redirect

import (
	"bytes"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"sync/atomic"
	"time"
)

// maxDiscarded is how much of a request's body is read while the request waits: as much as net/http reads after the answer.
const maxDiscarded = 256 << 10

// discardWhileWaiting reads the body of a request that waits, until the function that it returns is called. Over HTTP/1.x,
// net/http notices that a client has left only once the body is read: without that, the request would keep its place in the queue.
//
// It reads no body that is too long to be read to the end, and none that the client sends only after 100 Continue. The returned
// function waits for a read that is running, so that the body is not read while the answer is written.
func discardWhileWaiting(r *http.Request) (end func()) {
	if r.ProtoMajor != 1 || !hasBody(r, maxDiscarded) {
		return func() {}
	}
	var over atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 4<<10)
		for left := maxDiscarded; left > 0 && !over.Load(); {
			n, err := r.Body.Read(buffer[:min(len(buffer), left)])
			if left -= n; err != nil {
				return
			}
		}
	}()
	return func() {
		over.Store(true)
		<-done
	}
}

// hidesLeaving reports whether net/http cannot notice that the client leaves while its request waits, because the body may not be
// read to the end, or is not read at all.
func hidesLeaving(r *http.Request, read bool) bool {
	return r.ProtoMajor == 1 && r.ContentLength != 0 && (!read || r.ContentLength < 0 || !hasBody(r, maxDiscarded))
}

// RefuseBody makes the answer to a request with Expect: 100-continue the last one on its connection, if the body is not wanted:
// otherwise net/http would ask for the body and read it, to find the next request.
func RefuseBody(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && r.ContentLength != 0 && r.Header.Get("Expect") != "" {
		CloseConnection(w.Header())
	}
}

// CloseIfReplaced makes the answer the last one on its connection where another handler (request_body set), or a placeholder
// ({http.request.body}), has put a body of its own in the place of the client's: it has closed that, and net/http does not notice
// if that was before its end.
func CloseIfReplaced(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 1 || r.Body == nil {
		return
	}
	said, chunked := int64(0), len(r.TransferEncoding) > 0
	if length := r.Header["Content-Length"]; len(length) > 0 {
		said, _ = strconv.ParseInt(length[0], 10, 64) // which net/http has checked
	}
	switch t := reflect.TypeOf(r.Body); {
	case !chunked && said == 0:
	case t == nopCloser, t == nopCloserWriterTo, chunked && r.ContentLength >= 0, !chunked && r.ContentLength != said:
		CloseConnection(w.Header())
	}
}

// What [io.NopCloser] returns.
var (
	nopCloser         = reflect.TypeOf(io.NopCloser(struct{ io.Reader }{}))
	nopCloserWriterTo = reflect.TypeOf(io.NopCloser(new(bytes.Buffer)))
)

const (
	maxReadBefore = 1 << 20         // how much of a body is read: what net/http lets an HTTP/2 client send without more window
	readBeforeFor = 5 * time.Second // how long a client may take for it
)

// readBeforeReply reads the body of a request over HTTP/2 or HTTP/3 before the answer. If the answer comes before the end of the
// body, net/http resets the stream, though without an error. Clients must not discard the answer for that (RFC 9113, section
// 8.1); curl does, and its user sees only "Stream error in the HTTP/2 framing layer". Over HTTP/1.x, net/http itself reads on.
func readBeforeReply(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor < 2 || !hasBody(r, maxReadBefore) {
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readBeforeFor)) // of this stream, which ends with the answer
	_, _ = io.CopyN(io.Discard, r.Body, maxReadBefore)
}

// hasBody reports whether the request may have a body that can be read to its end: it has at most so many bytes if its length is
// known, and the client sends it without 100 Continue.
func hasBody(r *http.Request, most int64) bool {
	return r.Body != nil && r.ContentLength != 0 && r.ContentLength <= most && r.Header.Get("Expect") == ""
}
