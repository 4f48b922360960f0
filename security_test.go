// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/certs"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// TestSecurityNamesItsTests looks for what SECURITY.md names in the form `file_test.go` `TestName` or
// `file_test.go` `TestName/row`.
func TestSecurityNamesItsTests(t *testing.T) {
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z0-9_/]+_test\\.go)`\\s+((?:`(?:Test|Fuzz)[^`]+`,?\\s*)+)").FindAllStringSubmatch(string(text), -1)
	if len(named) < 20 {
		t.Errorf("%d files are named: does the form still fit?", len(named))
	}
	mentions := 0
	for _, n := range named {
		code, err := os.ReadFile(n[1])
		if err != nil {
			t.Error(err)
			continue
		}
		for _, test := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(n[2], -1) {
			mentions++
			name, row, _ := strings.Cut(test[1], "/")
			if !bytes.Contains(code, []byte("func "+name+"(")) {
				t.Errorf("%s has no %s", n[1], name)
			}
			if row != "" && !bytes.Contains(code, []byte(`"`+row+`"`)) {
				t.Errorf("%s: %s has no row %q", n[1], name, row)
			}
		}
	}
	if all := len(regexp.MustCompile("`(Test|Fuzz)[A-Z]").FindAllString(string(text), -1)); all != mentions {
		t.Errorf("%d of %d tests are named with their file", mentions, all)
	}
}

// TestConsulIsHeldAtArmsLength has something in Consul's place misbehave.
func TestConsulIsHeldAtArmsLength(t *testing.T) {
	clearConsulEnv(t)
	t.Setenv("CONSUL_HTTP_TOKEN", "consul-token")
	t.Run("redirects are not followed", func(t *testing.T) {
		consul, other := standin.RunConsul(t), standin.RunConsul(t, standin.Active("vault-9"))
		consul.Handle(func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, other.URL()+r.URL.RequestURI(), http.StatusTemporaryRedirect)
			return true
		})
		until(t, provision(t, consul, ""), "refused", func(s *engine.State) bool { return s.ReasonAt(time.Now()) == discovery.ReasonConsulError })
		if n := len(other.Requests()); n != 0 {
			t.Errorf("%d requests where the redirect leads", n)
		}
	})
	t.Run("endless answers are cut off", func(t *testing.T) {
		for code, limit := range map[int]int64{http.StatusOK: maxAnswer, http.StatusInternalServerError: maxErrorAnswer} {
			consul := standin.RunConsul(t)
			var once sync.Once
			var sent atomic.Int64
			consul.Handle(func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(code)
				once.Do(func() {
					chunk := bytes.Repeat([]byte(" "), 64<<10)
					for err := error(nil); err == nil && sent.Load() < 10*maxAnswer; sent.Add(int64(len(chunk))) {
						_, err = w.Write(chunk)
					}
				})
				return true
			})
			until(t, provision(t, consul, ""), "refused", func(s *engine.State) bool { return s.ReasonAt(time.Now()) == discovery.ReasonConsulError })
			if err := consul.Await(t.Context(), func() bool { return consul.Open() == 0 }); err != nil {
				t.Error(err)
			}
			const inSockets = 32 << 20 // what the two sockets may hold besides
			if n := sent.Load(); n > limit+inSockets {
				t.Errorf("status %d: %d bytes were taken, want at most %d and what sockets hold", code, n, limit)
			}
		}
	})
	t.Run("TLS 1.1 is refused", func(t *testing.T) {
		config := certs.New("consul", "127.0.0.1").Server()
		for version, want := range map[uint16]discovery.Reason{tls.VersionTLS11: discovery.ReasonConsulUnreachable, tls.VersionTLS12: discovery.ReasonNoService} {
			config := config.Clone()
			config.MinVersion, config.MaxVersion = tls.VersionTLS10, version
			consul := standin.RunConsulTLS(t, config)
			t.Setenv("CONSUL_HTTP_SSL_VERIFY", "false")
			t.Setenv("CONSUL_HTTP_ADDR", consul.URL())
			h, end := newHandler(t, `{"probe": {"mode": "off"}}`)
			t.Cleanup(end)
			h.redirector.View.Start()
			until(t, h, "an outcome", func(s *engine.State) bool { return s.ReasonAt(time.Now()) != discovery.ReasonStarting })
			if s := h.redirector.View.State(); s.ReasonAt(time.Now()) != want {
				t.Errorf("%s: reason %s (%s), want %s", tls.VersionName(version), s.ReasonAt(time.Now()), s.Detail, want)
			}
		}
	})
}

// unread is a body that must not be read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, errors.New("read")
}
func (unread) Close() error { return nil }

// TestRequestStaysHere has a request that carries secrets: nothing of it is read, repeated or passed on but path and query.
func TestRequestStaysHere(t *testing.T) {
	consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
	var mu sync.Mutex
	var sent bytes.Buffer
	consul.Handle(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		_ = r.Write(&sent)
		return false
	})
	h := provision(t, consul, "")
	until(t, h, "active", (*engine.State).Active) // while it waits, up to 256 KiB of the body are read, and thrown away
	for _, host := range []string{"redirector.example.com", "evil.example.com", "127.10.0.1:8200" /* 508 */} {
		r := httptest.NewRequest("PUT", "http://"+host+"/v1/secret/PLANTEDpath?PLANTEDquery", unread{t})
		r.Header.Set("X-Vault-Token", "PLANTEDtoken")
		r.Header.Set("X-Forwarded-Host", "evil.example.com")
		w := httptest.NewRecorder()
		if err := h.ServeHTTP(w, r, nil); err != nil {
			t.Fatal(err)
		}
		if location := w.Header().Get("Location"); w.Code == http.StatusTemporaryRedirect && location != "https://127.10.0.1:8200/v1/secret/PLANTEDpath?PLANTEDquery" {
			t.Errorf("Host %s: Location %s", host, location)
		}
		var answer bytes.Buffer
		_ = w.Result().Write(&answer)
		if strings.Contains(answer.String(), "PLANTEDtoken") {
			t.Errorf("the answer repeats the token: %s", answer.String())
		}
	}
	consul.Set("vault", standin.Active("vault-2")) // another query
	until(t, h, "another node", func(s *engine.State) bool { return s.Active() && s.Node.Name == "vault-2" })
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(sent.String(), "PLANTED") || !strings.Contains(sent.String(), "/v1/health/service/vault") {
		t.Errorf("Consul was sent %s", sent.String())
	}
}

// What is taken of an answer of Consul's, and of one that is an error.
const (
	maxAnswer      = 16 << 20
	maxErrorAnswer = 64 << 10
)
