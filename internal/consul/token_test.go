// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package consul

import (
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// write writes a file into a folder of the test.
func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadToken(t *testing.T) {
	dir := t.TempDir()
	for _, row := range []struct{ name, path, want, wrong string }{
		{"token", write(t, filepath.Join(dir, "token"), "secret"), "secret", ""},
		{"with a line break", write(t, filepath.Join(dir, "lines"), " secret\r\n"), "secret", ""},
		{"empty", write(t, filepath.Join(dir, "empty"), " \n"), "", "empty is empty"},
		{"not there", filepath.Join(dir, "none"), "", "none"},
		{"a folder", dir, "", "not a regular file"},
		{"a device", os.DevNull, "", "not a regular file"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := ReadToken(row.path)
			if row.wrong == "" && (err != nil || got != row.want) {
				t.Errorf("%q, %v", got, err)
			}
			if row.wrong != "" && (err == nil || !strings.Contains(err.Error(), row.wrong) || !strings.Contains(err.Error(), "token_file")) {
				t.Errorf("%v, want %q", err, row.wrong)
			}
		})
	}
}

// lastToken is the token of the last request.
func lastToken(requests []string) string { return requests[len(requests)-1] }

// tokens queries a source, and returns the tokens that have arrived so far.
func tokens(t *testing.T, s *Source, requests func() []string) []string {
	t.Helper()
	query(t, s, 0, 0)
	return requests()
}

// A token file is read before each query; while it cannot be read, the last token that could be is used.
func TestTokenFileIsReadAgain(t *testing.T) {
	consul := standin.RunConsul(t)
	path := filepath.Join(t.TempDir(), "token")
	s := sourceOf(t, consul, func(s *Settings) { s.Token, s.TokenFile = "before", path })
	s.token.wait = time.Minute // however busy the machine is
	requests := func() (all []string) {
		for _, r := range consul.Requests() {
			all = append(all, r.Token)
		}
		return all
	}
	for _, step := range []struct{ name, text, want string }{
		{"not there yet", "", "before"},
		{"first", "one", "one"},
		{"replaced", "two\n", "two"},
		{"emptied", " ", "two"},
		{"gone", "", "two"},
		{"back", "three", "three"},
	} {
		if step.text == "" {
			_ = os.Remove(path)
		} else {
			write(t, path, step.text)
		}
		if got := lastToken(tokens(t, s, requests)); got != step.want {
			t.Errorf("%s: token %q, want %q", step.name, got, step.want)
		}
	}
}

// Consul's own client would take a token from the environment if none is set (C16).
func TestNoTokenMeansNone(t *testing.T) {
	dir := t.TempDir()
	consul := standin.RunConsul(t)
	for name, value := range map[string]string{api.HTTPTokenEnvName: "stray", api.HTTPTokenFileEnvName: write(t, filepath.Join(dir, "env"), "stray-file")} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			var header http.Header
			consul.Handle(func(_ http.ResponseWriter, r *http.Request) bool { header = r.Header.Clone(); return false })
			query(t, sourceOf(t, consul, nil), 0, 0)
			if got, ok := header["X-Consul-Token"]; ok || header.Get("Authorization") != "" {
				t.Errorf("token %q was sent, want none", got)
			}
			query(t, sourceOf(t, consul, func(s *Settings) { s.Token = "own" }), 0, 0)
			if got := header.Get("X-Consul-Token"); got != "own" {
				t.Errorf("token %q was sent, want the source's own", got)
			}
		})
	}
	// Not even looked at: it may be of another cluster, and gone.
	t.Setenv(api.HTTPTokenFileEnvName, filepath.Join(dir, "none"))
	query(t, sourceOf(t, consul, nil), 0, 0)
}

// Secrets that the other side sends back are not in the error.
func TestErrorsQuoteNoSecret(t *testing.T) {
	consul := standin.RunConsul(t)
	consul.Handle(func(w http.ResponseWriter, r *http.Request) bool {
		_, password, _ := r.BasicAuth()
		http.Error(w, "no access with "+r.Header.Get("X-Consul-Token")+" and "+password, http.StatusForbidden)
		return true
	})
	_, err := sourceOf(t, consul, func(s *Settings) {
		s.Token, s.Auth = "hunter2", &api.HttpBasicAuth{Username: "user", Password: "hunter3"}
	}).Query(t.Context(), 0, 0)
	if err == nil || strings.Contains(err.Error(), "hunter") || !strings.Contains(err.Error(), "no access with [redacted] and [redacted]") {
		t.Errorf("error %v", err)
	}
}

// A read of the file that hangs holds up a query for a second, once, and no reload at all (B9).
func TestTokenFileThatHangs(t *testing.T) {
	consul := standin.RunConsul(t)
	path := filepath.Join(t.TempDir(), "token")
	s := sourceOf(t, consul, func(s *Settings) { s.Token, s.TokenFile = "first", path })
	release := make(chan struct{})
	s.token.load = func(string) (string, error) { <-release; return "late", nil }
	// Neither waits for the read; the second one not even for the second that the first one does.
	if query(t, s, 0, 0); !s.token.reading.Load() {
		t.Error("the read is over")
	}
	s.token.wait = time.Hour
	query(t, s, 0, 0)
	for _, r := range consul.Requests() {
		if r.Token != "first" {
			t.Errorf("token %q, want the last one known", r.Token)
		}
	}
	close(release)
	for end := time.Now().Add(10 * time.Second); s.token.reading.Load(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("the read has not ended")
		}
	}
	s.token.load, s.token.wait = ReadToken, time.Minute
	query(t, s, 0, 0) // the file is not there: what came late is the last one known
	if got := consul.Requests()[2].Token; got != "late" {
		t.Errorf("token %q, want the one that came late", got)
	}
}
