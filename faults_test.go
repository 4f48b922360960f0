// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// on makes a fault of an answer to all requests.
func on(answer http.HandlerFunc) func(*standin.Consul) {
	return func(c *standin.Consul) {
		c.Handle(func(w http.ResponseWriter, r *http.Request) bool { answer(w, r); return true })
	}
}

// replies answers with headers of Consul, a code and a body.
func replies(code int, body string, headers ...string) func(*standin.Consul) {
	return on(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Consul-Index", "7000")
		w.Header().Set("X-Consul-KnownLeader", "true")
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	})
}

// writes answers with bytes that need not be HTTP, and then hangs or closes the connection.
func writes(answer string, hang bool) func(*standin.Consul) {
	return on(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Write([]byte(answer))
		for hang { // until the client goes, or Consul closes
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				return
			}
		}
	})
}

func flush(w http.ResponseWriter, part string) {
	_, _ = w.Write([]byte(part))
	_ = http.NewResponseController(w).Flush()
}

// drip answers byte by byte, and never to the end.
func drip(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := 0; r.Context().Err() == nil; i++ {
		flush(w, lie()[i%len(lie()):][:1])
		select {
		case <-tick.C:
		case <-r.Context().Done():
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	together(t, map[string]func(*testing.T){
		"that end queries":    faultsThatEndQueries,
		"redirect":            faultRedirect,
		"of the index":        faultsOfTheIndex,
		"churn":               faultChurn,
		"that hide":           faultsThatHide,
		"hide from the start": faultHidesFromTheStart,
		"of the certificate":  faultsOfTheCertificate,
		"of the name":         faultsOfTheName,
	}, func(t *testing.T, group func(*testing.T)) { group(t) })
}

func faultsThatEndQueries(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	rows := map[string]fault{
		"refuses": {begin: (*standin.Consul).Refuse, reason: discovery.ReasonConsulUnreachable, end: func(c *standin.Consul) {
			if err := c.Accept(); err != nil {
				t.Error(err)
			}
		}},
		"hangs before headers": {begin: on(hang), reason: discovery.ReasonConsulUnreachable, detail: "no answer in time"},
		"hangs after headers": {begin: on(func(w http.ResponseWriter, r *http.Request) {
			flush(w, "")
			hang(w, r)
		}), reason: discovery.ReasonConsulUnreachable, detail: "no answer in time"},
		"hangs within the body": {begin: on(func(w http.ResponseWriter, r *http.Request) {
			flush(w, lie()[:20])
			hang(w, r)
		}), reason: discovery.ReasonConsulUnreachable, detail: "no answer in time"},
		"drips": {begin: on(drip), reason: discovery.ReasonConsulUnreachable, detail: "no answer in time"},
		"resets": {begin: func(c *standin.Consul) {
			on(func(http.ResponseWriter, *http.Request) { c.Reset() })(c)
		}, reason: discovery.ReasonConsulUnreachable},
		"resets within the body": {begin: func(c *standin.Consul) {
			on(func(w http.ResponseWriter, _ *http.Request) { flush(w, lie()[:20]); c.Reset() })(c)
		}, reason: discovery.ReasonConsulError},
		"closes":               {begin: writes("", false), reason: discovery.ReasonConsulUnreachable},
		"speaks no HTTP":       {begin: writes("SSH-2.0-OpenSSH_9.9\r\n", true), reason: discovery.ReasonConsulUnreachable},
		"switches protocols":   {begin: writes("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", true), reason: discovery.ReasonConsulError, detail: "101"},
		"403":                  {begin: replies(403, "Permission denied: "+lie()), reason: discovery.ReasonACLDenied, detail: "answered 403"},
		"401":                  {begin: replies(401, lie()), reason: discovery.ReasonACLDenied, detail: "answered 401"},
		"404":                  {begin: replies(404, lie()), reason: discovery.ReasonConsulError, detail: "answered 404"},
		"429":                  {begin: replies(429, "Your IP is issuing too many concurrent connections", "Retry-After", "3600"), reason: discovery.ReasonConsulError, detail: "answered 429"},
		"500":                  {begin: replies(500, "No cluster leader"), reason: discovery.ReasonConsulError, detail: "No cluster leader"},
		"503":                  {begin: replies(503, lie()), reason: discovery.ReasonConsulError, detail: "answered 503"},
		"204":                  {begin: replies(204, ""), reason: discovery.ReasonConsulError, detail: "answered 204"},
		"HTML":                 {begin: replies(200, "<html><body>Sign in</body></html>", "Content-Type", "text/html"), reason: discovery.ReasonConsulError, detail: "unusable answer"},
		"half a JSON":          {begin: replies(200, lie()[:len(lie())/2]), reason: discovery.ReasonConsulError, detail: "unusable answer"},
		"empty body":           {begin: replies(200, ""), reason: discovery.ReasonConsulError, detail: "unusable answer"},
		"an object":            {begin: replies(200, `{"vault": `+lie()+`}`), reason: discovery.ReasonConsulError, detail: "unusable answer"},
		"null":                 {begin: replies(200, "null"), reason: discovery.ReasonConsulError, detail: "unusable answer"},
		"a string":             {begin: replies(200, `"127.0.0.1:8300"`), reason: discovery.ReasonConsulError, detail: "unusable answer"},
		"a list of null":       {begin: replies(200, "[null]"), reason: discovery.ReasonConsulError, detail: "unusable answer"},
		"a list of empties":    {begin: replies(200, "[{}]"), reason: discovery.ReasonConsulError, detail: "unusable answer"},
		"the catalog's answer": {begin: replies(200, `[{"Node":"vault-9","Address":"127.10.0.9","ServiceTags":["active"],"ServicePort":8200}]`), reason: discovery.ReasonConsulError, detail: "unusable answer"},
		"half a pair":          {begin: replies(200, strings.Replace(lie(), `"Service":{`, `"Svc":{`, 1)), reason: discovery.ReasonConsulError, detail: "unusable answer"},
		"Content-Length too long": {
			begin: replies(200, lie()[:len(lie())-1], "Content-Length", strconv.Itoa(len(lie()))), reason: discovery.ReasonConsulError,
			detail: "unusable answer",
		},
		"Content-Length too short": {begin: writes("HTTP/1.1 200 OK\r\nX-Consul-Index: 7000\r\nContent-Length: 20\r\n\r\n"+lie(), true), reason: discovery.ReasonConsulError, detail: "unusable answer"},
		"Content-Length no number": {begin: writes("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"+lie(), true), reason: discovery.ReasonConsulUnreachable},
	}
	together(t, rows, func(t *testing.T, f fault) {
		newSite(t, standin.RunConsul(t, truthBefore()...), "").suffer(t, f)
	})
}

// The target of a redirect gets the token.
func faultRedirect(t *testing.T) {
	together(t, map[string]int{"301": 301, "302": 302, "303": 303, "307": 307, "308": 308}, func(t *testing.T, code int) {
		other := standin.RunConsul(t, standin.Active("vault-9"))
		begin := on(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL()+r.URL.RequestURI(), code)
		})
		newSite(t, standin.RunConsul(t, truthBefore()...), "").suffer(t, fault{begin: begin, reason: discovery.ReasonConsulError, detail: "redirects are not followed"})
		if n := len(other.Requests()); n != 0 {
			t.Errorf("%d requests to another host", n)
		}
	})
}

// together runs the rows at the same time however few cores there are: most of their time they wait.
func together[R any](t *testing.T, rows map[string]R, run func(*testing.T, R)) {
	var all sync.WaitGroup
	for name, row := range rows {
		all.Go(func() { t.Run(name, func(t *testing.T) { run(t, row) }) })
	}
	all.Wait()
}
