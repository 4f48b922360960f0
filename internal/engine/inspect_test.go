// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// document is an answer of a node whose clock is ahead by so long.
func document(code int, ahead time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, `{"initialized":true,"sealed":false,"standby":%t,"version":"1.21.0","cluster_id":"c","server_time_utc":%d}`,
			code != 200, time.Now().Add(ahead).Unix())
	}
}

func TestInspect(t *testing.T) {
	text := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("It works!")) }
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, row := range []struct {
		name    string
		handler http.HandlerFunc
		tls     bool   // the node speaks https
		scheme  string // that it is asked by; default: its own
		trusted bool
		check   func(Inspection) bool
	}{
		{"standby", document(429, 0), false, "", false, func(i Inspection) bool {
			h := i.Health
			return h.Vault && h.String() == "standby (429)" && h.Version == "1.21.0" && h.ClusterID == "c" && h.HasClock && h.Ahead == 0 && i.Certificate == nil
		}},
		{"active", document(200, time.Hour), true, "", true, func(i Inspection) bool {
			c := i.Certificate
			return i.Health.Result == ResultActive && i.Health.Ahead > time.Hour-3*time.Second && c.For == "127.0.0.1" && c.WrongName == "" &&
				c.Untrusted == "" && strings.Contains(c.Names, "127.0.0.1") && c.To.After(time.Now())
		}},
		{"untrusted, but asked", document(200, 0), true, "", false, func(i Inspection) bool {
			return i.Health.Result == ResultActive && strings.Contains(i.Certificate.Untrusted, "unknown authority") && i.Certificate.WrongName == ""
		}},
		{"not Vault", text, false, "", false, func(i Inspection) bool { return !i.Health.Vault && i.Health.Result == ResultInvalid }},
		{"http, asked by https", document(200, 0), false, "https", false, func(i Inspection) bool {
			return i.FailedStep == StepHandshake && i.OtherScheme && i.Health == nil
		}},
		{"https, asked by http", document(200, 0), true, "http", false, func(i Inspection) bool {
			return i.FailedStep == StepNone && i.OtherScheme && i.Health.Code == 400
		}},
		{"silent", hang, true, "", true, func(i Inspection) bool {
			return i.FailedStep == StepRequest && i.Failure == "no answer in time" && i.Certificate != nil && i.Health == nil
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(row.handler)
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			if row.tls {
				s.StartTLS()
			} else {
				s.Start()
			}
			defer s.Close()
			base := s.URL
			if row.scheme != "" {
				_, address, _ := strings.Cut(base, "://")
				base = row.scheme + "://" + address
			}
			var settings *tls.Config
			if row.trusted {
				settings = &tls.Config{RootCAs: x509.NewCertPool()}
				settings.RootCAs.AddCert(s.Certificate())
			}
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			i := Inspect(ctx, base, "", settings)
			if !row.check(i) || i.Host != "127.0.0.1" || len(i.Addresses) != 1 || i.Connected == 0 || (i.Failure == "") != (i.FailedStep == StepNone) {
				t.Errorf("%+v, health %+v, certificate %+v", i, i.Health, i.Certificate)
			}
		})
	}
	s := httptest.NewServer(nil)
	s.Close()
	if i := Inspect(t.Context(), s.URL, "", nil); i.FailedStep != StepConnect || i.Failure != "connection refused" || i.Connected != 0 {
		t.Errorf("%+v", i)
	}
}

// The names, roles and remedies of codes are complete: a remedy is there exactly where a node cannot become active as it is.
func TestRoles(t *testing.T) {
	for _, r := range roles {
		usable := r.Code == 200 || r.Code == 429 || r.Code == 473
		if r.Text == "" || !r.Result.answered() || (r.Remedy == "") != usable || RoleOf(r.Code) != r || r.Result == ResultInvalid {
			t.Errorf("%+v", r)
		}
	}
	if r := RoleOf(404); r.Result != ResultInvalid || r.String() != "unknown (404)" || r.Remedy == "" {
		t.Errorf("%+v", r)
	}
}
